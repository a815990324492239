//! The server of the single-queue design: one queue for requests and answers.
//!
//! Clients send requests as type 1. The server sends each answer into the same queue; its type is
//! the id in the request, and the client receives by that type.
//!
//! A server that waits in msgsnd deadlocks here: once the queue is full of requests, only the
//! server can make room, and it waits for room. So this server never waits there. It keeps answers
//! that do not fit and goes on receiving. While the queue is full, it removes answers that nobody
//! collects: soon if no process has that id, after `--keep` in any case.

mod classic;
mod single_queue;

use std::collections::{HashMap, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use nix::unistd::Pid;
use sysv_ipc::{MessageBuffer, MessageType, Queue, QueueId, ReceiveError, Select, SendError};

use classic::{complain, is_alive, say};
use single_queue::{
    LARGEST, MALFORMED, OK, Queues, REQUEST, TOO_LONG, answer_type, decode, message,
};

/// Answer the requests of single_queue_client with their bodies
#[derive(Debug, Parser)]
struct Opts {
    #[command(flatten)]
    queues: Queues,
    /// Never wait in msgrcv: try again and again instead (IPC_NOWAIT)
    #[arg(short, long)]
    nonblock: bool,
    /// While the queue is full, drop answers that were not collected for this long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    keep: Duration,
    /// Say what is dropped and why
    #[arg(short, long)]
    verbose: bool,
}

/// How long an answer stays whose id no process has: the id can also be a client's `--id`.
const DEAD_GRACE: Duration = Duration::from_millis(100);

/// The most answers to keep that do not fit into the queue.
const MAX_KEPT: usize = 1024;

fn main() -> ! {
    let opts = Opts::parse();
    classic::main(0, || {
        let key = opts.queues.key;
        classic::lock(key)?;
        let requests = classic::server_queue(key)?;
        let answers = opts.queues.reply_key.map_or(Ok(requests), classic::server_queue)?;
        say(format!("single_queue_server: ready: key {key}, queue {}", requests.id()));
        let (kept, uncollected) = (VecDeque::new(), HashMap::new());
        let looked_at = Instant::now();
        Server { opts, requests, answers, kept, uncollected, looked_at }.serve()
    })
}

struct Server {
    opts: Opts,
    requests: Queue,
    answers: Queue,
    /// Answers that did not fit, and since when.
    kept: VecDeque<(Instant, MessageBuffer)>,
    /// Answers that lie in the full queue, and since when.
    uncollected: HashMap<(MessageType, Vec<u8>), Instant>,
    looked_at: Instant,
}

impl Server {
    /// Receives and answers until the queue is removed.
    fn serve(&mut self) -> Result<()> {
        let mut request = MessageBuffer::with_capacity(LARGEST);
        let which = Select::Type(REQUEST);
        loop {
            // Wait in msgrcv only while a request can come in: nothing else ends the wait.
            let full = self.is_full();
            if full {
                self.make_room();
            } else {
                self.uncollected.clear();
            }
            let received = if full || self.opts.nonblock {
                self.requests.try_receive(&mut request, which)
            } else {
                self.requests.receive(&mut request, which)
            };
            match received {
                Ok(()) => self.answer(&request, MALFORMED),
                Err(ReceiveError::TooBig) => {
                    self.requests.receive_truncated(&mut request, which)?;
                    self.answer(&request, TOO_LONG);
                }
                Err(ReceiveError::Empty) if full => thread::sleep(Duration::from_millis(1)),
                Err(ReceiveError::Empty | ReceiveError::Interrupted) => thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether answers are kept, or the next request finds no room.
    fn is_full(&self) -> bool {
        let status = self.requests.status();
        let no_room = status.is_ok_and(|status| status.bytes + LARGEST as u64 > status.max_bytes);
        !self.kept.is_empty() || self.answers == self.requests && no_room
    }

    /// Sends the answer to a request, now or later; `status` is that of a request without a body.
    fn answer(&mut self, request: &MessageBuffer, status: i32) {
        let id = request.text().first_chunk().map_or(0, |id| i32::from_ne_bytes(*id));
        let per_client = self.opts.queues.per_client;
        let queue = if per_client { Queue::from_id(QueueId::new(id)) } else { self.answers };
        // In a queue of the client's own, any type will do.
        let Some(mtype) = answer_type(if per_client { 2 } else { id }) else {
            return self.tell(&format!("refused a request: no client has id {id}"));
        };
        let answer = match decode(request.text()) {
            Some((_, body)) => message(mtype, OK, body),
            None => message(mtype, status, b""),
        };
        match queue.try_send(&answer) {
            Ok(()) => {}
            // A client's own queue is full if that client does not collect. It alone loses.
            Err(SendError::Full) if !per_client && self.kept.len() < MAX_KEPT => {
                self.kept.push_back((Instant::now(), answer));
            }
            Err(error) => self.tell(&format!("dropped an answer to {id}: {error}")),
        }
    }

    /// Sends the kept answers, and drops what nobody collects.
    fn make_room(&mut self) {
        if self.looked_at.elapsed() >= Duration::from_millis(10) {
            self.looked_at = Instant::now();
            self.remove_uncollected();
        }
        while let Some((since, answer)) = self.kept.front() {
            match self.answers.try_send(answer) {
                // It waits for larger ones in the queue, which must go first.
                Err(SendError::Full) if since.elapsed() < 2 * self.opts.keep => break,
                Err(SendError::Full) => {
                    self.tell(&format!("dropped an answer to {}: full", answer.mtype().get()));
                }
                _ => {}
            }
            self.kept.pop_front();
        }
    }

    /// Looks through the queue (`MSG_COPY`), and removes answers that have been there for too long.
    fn remove_uncollected(&mut self) {
        let mut found = HashMap::new();
        let mut copy = MessageBuffer::with_capacity(LARGEST);
        for index in 0.. {
            match self.answers.peek(&mut copy, index) {
                Ok(()) if copy.mtype() == REQUEST => {}
                Ok(()) => {
                    let answer = (copy.mtype(), copy.text().to_vec());
                    let since = self.uncollected.get(&answer).copied();
                    found.entry(answer).or_insert_with(|| since.unwrap_or_else(Instant::now));
                }
                Err(ReceiveError::TooBig) => {} // not ours
                Err(_) => break,
            }
        }
        for ((mtype, _), since) in &found {
            let dead = i32::try_from(mtype.get()).is_ok_and(|pid| !is_alive(Pid::from_raw(pid)));
            let keep = if dead { DEAD_GRACE } else { self.opts.keep };
            if since.elapsed() >= keep
                && self.answers.try_receive(&mut copy, Select::Type(*mtype)).is_ok()
            {
                let why = if dead { "no such process" } else { "not collected" };
                self.tell(&format!("dropped an answer to {}: {why}", mtype.get()));
            }
        }
        self.uncollected = found;
    }

    fn tell(&self, what: &str) {
        if self.opts.verbose {
            complain(what);
        }
    }
}
