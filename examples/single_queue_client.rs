//! A client of the single-queue design.
//!
//! It sends a request into the server's queue and receives the answer from the same queue, by its
//! type, which is the id in the request. It makes no queue, except with `--per-client`.
//!
//! The design has limits: who may send may also receive, other clients' answers too; two clients
//! with one id take each other's answers; and an answer that its client did not collect stays for
//! the next client with that id, so this one first discards old answers.

mod classic;
mod single_queue;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use sysv_ipc::{MessageBuffer, Queue, ReceiveError, Select, SendError};

use classic::{complain, end, say};
use single_queue::{BODY, LARGEST, OK, Queues, REQUEST, answer_type, decode, message};

/// Ask single_queue_server, and check its answers
#[derive(Debug, Parser)]
struct Opts {
    #[command(flatten)]
    queues: Queues,
    /// The id of this client, from 2 [default: the pid]
    #[arg(long, value_parser = clap::value_parser!(i32).range(2..), conflicts_with = "per_client")]
    id: Option<i32>,
    /// The body of the request
    #[arg(short, long, value_name = "TEXT")]
    msg: String,
    /// Ask N times, with " 1" to " N" behind the body
    #[arg(short, long, value_name = "N", default_value = "1")]
    count: u64,
    /// Fail after this time
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Never wait in msgsnd or msgrcv: try again and again instead (IPC_NOWAIT)
    #[arg(short, long)]
    nonblock: bool,
    /// Do not collect the answers, like a client that dies
    #[arg(long)]
    abandon: bool,
}

fn main() -> ! {
    let opts = Opts::parse();
    classic::main(130, || {
        let requests = classic::find_server(opts.queues.key)?;
        // Neither msgsnd nor msgrcv has a timeout.
        let timeout = opts.timeout;
        thread::spawn(move || {
            thread::sleep(timeout);
            end(1, Some(format!("timed out after {}", humantime::format_duration(timeout))))
        });
        let (client, start) = (Client::new(&opts, requests)?, Instant::now());
        (1..=opts.count).try_for_each(|number| client.ask(number))?;
        complain(format!("{} requests in {:.6} s", opts.count, start.elapsed().as_secs_f64()));
        Ok(())
    })
}

struct Client<'a> {
    opts: &'a Opts,
    requests: Queue,
    answers: Queue,
    id: i32,
    /// Which messages are for this client.
    ours: Select,
}

impl<'a> Client<'a> {
    fn new(opts: &'a Opts, requests: Queue) -> Result<Self> {
        let (mut answers, mut ours) = (requests, Select::Any);
        let mut id = opts.id.unwrap_or(std::process::id().cast_signed());
        if opts.queues.per_client {
            answers = classic::private_queue()?;
            id = answers.id().get();
        } else {
            ours = Select::Type(answer_type(id).context("this id is no client's")?);
        }
        if let Some(key) = opts.queues.reply_key {
            answers = Queue::open(key)?;
        }
        let mut old = MessageBuffer::with_capacity(LARGEST);
        while answers.try_receive(&mut old, ours).is_ok() {
            complain("discards an old answer");
        }
        Ok(Self { opts, requests, answers, id, ours })
    }

    /// Sends one request, waits for its answer and checks it.
    fn ask(&self, number: u64) -> Result<()> {
        let mut body = self.opts.msg.clone();
        if self.opts.count > 1 {
            body += &format!(" {number}");
        }
        ensure!(body.len() < BODY, "--msg: more than {} bytes", BODY - 1);
        self.send(&message(REQUEST, self.id, body.as_bytes()))?;
        if self.opts.abandon {
            return Ok(());
        }
        let answer = self.receive()?;
        let (status, text) = decode(answer.text()).context("a malformed answer")?;
        let text = String::from_utf8_lossy(text);
        ensure!(status == OK, "the request was refused: status {status}");
        ensure!(text == body, "the answer to another request: {text:?}, not {body:?}");
        if self.opts.count == 1 {
            say(text);
        }
        Ok(())
    }

    fn send(&self, request: &MessageBuffer) -> Result<(), SendError> {
        loop {
            let sent = match self.opts.nonblock {
                true => self.requests.try_send(request),
                false => self.requests.send(request),
            };
            match sent {
                Err(SendError::Full | SendError::Interrupted) => thread::yield_now(),
                sent => return sent,
            }
        }
    }

    fn receive(&self) -> Result<MessageBuffer, ReceiveError> {
        let mut answer = MessageBuffer::with_capacity(LARGEST);
        loop {
            let received = match self.opts.nonblock {
                true => self.answers.try_receive(&mut answer, self.ours),
                false => self.answers.receive(&mut answer, self.ours),
            };
            match received {
                Err(ReceiveError::Empty | ReceiveError::Interrupted) => thread::yield_now(),
                received => return received.map(|()| answer),
            }
        }
    }
}
