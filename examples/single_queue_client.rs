//! A client of the single-queue design: one queue for everything.
//!
//! This process puts a request into the server's queue and receives the answer from the same queue, by
//! its type, which is the id in the request. It makes no queue (but with `--per-client`) and removes
//! none of others. Neither msgsnd nor msgrcv takes a timeout: a thread watches the clock.
//!
//! What the design cannot give: whoever may send may also receive, others' answers too; two clients
//! with one id take each other's answers; and an answer that its client did not collect is found by
//! the next one with that id, which is why this one looks for such at first.

mod classic;
#[path = "single_queue/deadlock.rs"]
mod deadlock;
mod single_queue;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use sysv_ipc::{Key, MessageBuffer, Mode, Queue, ReceiveError, Select, SendError};

use classic::{Stop, complain, duration, own, say};
use single_queue::{BODY, LARGEST, OK, Queues, REQUEST, answer_type, decode, message};

/// Ask single_queue_server
///
/// Writes the answer to standard output, and a report to standard error.
#[derive(Debug, Parser)]
#[command(after_help = classic::EXIT_STATUS)]
struct Opts {
    #[command(flatten)]
    queues: Queues,
    /// The id to be answered under, from 2 [default: the pid]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(2..), conflicts_with = "per_client")]
    id: Option<i32>,
    /// The body of the request
    #[arg(short, long, value_name = "TEXT", required_unless_present = "demonstrate_deadlock")]
    msg: Option<String>,
    /// Ask N times, with " 1" to " N" behind the body, and check every answer
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Fail when a request takes longer than this
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Never wait in msgsnd or msgrcv: try again and again instead (IPC_NOWAIT)
    #[arg(short, long)]
    nonblock: bool,
    /// Do not collect the answers, like a client that dies
    #[arg(long)]
    abandon: bool,
    /// Show how one queue for everything locks up, and what helps
    #[arg(long, conflicts_with_all = ["msg", "count", "id", "abandon", "reply_key", "per_client"])]
    demonstrate_deadlock: bool,
    /// Say which queues are used, and every answer of many
    #[arg(short, long)]
    verbose: bool,
}

impl Opts {
    fn body(&self, number: u64) -> String {
        let text = self.msg.as_deref().unwrap_or_default();
        if self.count == 1 { text.to_owned() } else { format!("{text} {number}") }
    }
}

/// Read by other threads, too: when a signal or the timeout ends the program, it reports all the same.
struct Metrics {
    asked: AtomicU64,
    answered: AtomicU64,
    nanoseconds: AtomicU64,
    slowest: AtomicU64,
}

static METRICS: Metrics = Metrics {
    asked: AtomicU64::new(0),
    answered: AtomicU64::new(0),
    nanoseconds: AtomicU64::new(0),
    slowest: AtomicU64::new(0),
};

static STARTED: OnceLock<Instant> = OnceLock::new();

fn main() -> ! {
    classic::main(run)
}

fn run() -> Result<(), Stop> {
    let opts: Opts = classic::parse();
    let length = opts.body(opts.count).len() + 1; // the longest
    if length > BODY {
        let why = format!("--msg: {length} bytes with the NUL are more than {BODY}");
        return Err(Stop::unavailable(why));
    }
    classic::end_on_signals()?;
    let requests = classic::find("server", opts.queues.key)?;
    if opts.demonstrate_deadlock {
        return deadlock::demonstrate(requests, opts.timeout);
    }
    let client = Client::new(&opts, requests)?;
    let started = STARTED.get_or_init(Instant::now);
    classic::end_with(report);
    let done = if opts.abandon { &METRICS.asked } else { &METRICS.answered };
    watch(done, *started, opts.timeout);
    (1..=opts.count).try_for_each(|number| client.ask(number))
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
    fn new(opts: &'a Opts, requests: Queue) -> Result<Self, Stop> {
        let (mut answers, mut ours) = (requests, Select::Any);
        let mut id = opts.id.unwrap_or(std::process::id().cast_signed());
        if opts.queues.per_client {
            answers = own(|| Queue::create(Key::PRIVATE, Mode::new(0o600)), Queue::remove)?;
            id = answers.id().get();
        } else {
            let reserved =
                || Stop::unavailable(format!("id {id} is no client's: give another --id"));
            ours = Select::Type(answer_type(id).ok_or_else(reserved)?);
        }
        if let Some(key) = opts.queues.reply_key {
            answers = Queue::open(key)?;
        }
        let client = Self { opts, requests, answers, id, ours };
        client.tell(format!("asks queue {} as {id}, answers in {}", requests.id(), answers.id()));
        client.discard_old_answers();
        Ok(client)
    }

    /// A client that had this id before may have left answers.
    fn discard_old_answers(&self) {
        let mut old = MessageBuffer::with_capacity(LARGEST);
        while self.answers.try_receive(&mut old, self.ours).is_ok() {
            self.tell("discards an answer to somebody before");
        }
    }

    /// Sends one request, waits for its answer and checks it.
    fn ask(&self, number: u64) -> Result<(), Stop> {
        let (started, body) = (Instant::now(), self.opts.body(number));
        self.send(&message(REQUEST, self.id, body.as_bytes()))?;
        METRICS.asked.fetch_add(1, Relaxed);
        if self.opts.abandon {
            return Ok(());
        }
        let answer = self.receive()?;
        let (status, text) = decode(answer.text()).ok_or(Stop::failed("a malformed answer"))?;
        let text = String::from_utf8_lossy(text);
        if status != OK {
            return Err(Stop::failed(format!("status {status}: {text:?}")));
        }
        if text != body {
            return Err(Stop::failed(format!("another's answer: {text:?}, not {body:?}")));
        }
        let took = started.elapsed().as_nanos() as u64;
        METRICS.nanoseconds.fetch_add(took, Relaxed);
        METRICS.slowest.fetch_max(took, Relaxed);
        METRICS.answered.fetch_add(1, Relaxed);
        if self.opts.count == 1 || self.opts.verbose {
            say(text);
        }
        Ok(())
    }

    fn send(&self, request: &MessageBuffer) -> Result<(), Stop> {
        loop {
            let sent = if self.opts.nonblock {
                self.requests.try_send(request)
            } else {
                self.requests.send(request)
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(SendError::Full) => thread::yield_now(),
                Err(SendError::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&self) -> Result<MessageBuffer, Stop> {
        let mut answer = MessageBuffer::with_capacity(LARGEST);
        loop {
            let received = if self.opts.nonblock {
                self.answers.try_receive(&mut answer, self.ours)
            } else {
                self.answers.receive(&mut answer, self.ours)
            };
            match received {
                Ok(()) => return Ok(answer),
                Err(ReceiveError::Empty) => thread::yield_now(),
                Err(ReceiveError::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn tell(&self, what: impl std::fmt::Display) {
        if self.opts.verbose {
            complain(what);
        }
    }
}

/// Ends the program when no request was done for this long, wherever its main thread waits.
fn watch(done: &'static AtomicU64, started: Instant, timeout: Duration) {
    thread::spawn(move || {
        let (mut before, mut since) = (done.load(Relaxed), started);
        while since.elapsed() < timeout {
            thread::sleep((timeout / 20).min(Duration::from_millis(50)));
            let now = done.load(Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        let timeout = humantime::format_duration(timeout);
        classic::end(1, Some(format!("timed out: no answer within {timeout}")));
    });
}

fn report() {
    let Some(started) = STARTED.get() else { return };
    let [asked, answered, nanoseconds, slowest] =
        [&METRICS.asked, &METRICS.answered, &METRICS.nanoseconds, &METRICS.slowest]
            .map(|metric| metric.load(Relaxed));
    let seconds = started.elapsed().as_secs_f64();
    let mean = nanoseconds / answered.max(1) / 1000;
    complain(format!(
        "{asked} requests in {seconds:.2} s ({:.0} a second), {answered} answered, each in {mean} µs, \
         the slowest in {} µs",
        asked as f64 / seconds,
        slowest / 1000
    ));
}
