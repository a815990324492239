//! The server of the single-queue design: one queue for everything.
//!
//! This process makes the queue under a well-known key and removes it. Clients put requests into it as
//! type 1, and the server puts each answer into the same queue, as type = the id in the request, which
//! the client waits for. It forks nothing; clients own nothing.
//!
//! A server that waits in msgsnd is lost here: once the queue is full of requests, only the server can
//! make room, and it waits for room. So this one never does. What does not fit it keeps for a while and
//! goes on receiving; and while the queue is full, it takes out the answers that nobody collects: soon
//! where no process has the id, after `--keep` in any case.

mod classic;
mod single_queue;

use std::collections::{HashMap, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::unistd::Pid;
use sysv_ipc::{
    Key, MessageBuffer, MessageType, Mode, Queue, QueueId, ReceiveError, Select, SendError,
};

use classic::{PROGRAM, Stop, complain, duration, is_alive, is_stopping, own, say};
use single_queue::{LARGEST, OK, Queues, REQUEST, answer_type, decode, message};

/// Answer the requests of single_queue_client, until a signal
///
/// The answer to a request is its body, and a status: 0, 1 malformed, 2 too long.
#[derive(Debug, Parser)]
#[command(after_help = classic::EXIT_STATUS)]
struct Opts {
    #[command(flatten)]
    queues: Queues,
    /// Never wait in msgrcv: look again and again instead (IPC_NOWAIT)
    #[arg(short, long)]
    nonblock: bool,
    /// While the queue is full, drop answers that were not collected for this long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    keep: Duration,
    /// Say what is dropped and why
    #[arg(short, long)]
    verbose: bool,
}

/// The statuses of answers to requests that are not in order.
const MALFORMED: i32 = 1;
const TOO_LONG: i32 = 2;

/// How long an answer waits whose id is no process's: it can be an `--id`, and somebody's.
const DEAD_GRACE: Duration = Duration::from_millis(100);

/// The most answers to keep that do not fit into the queue.
const MAX_KEPT: usize = 1024;

/// Where the answers of a queue per client go, each to its own queue: any type will do.
const ANSWER: MessageType = MessageType::new(2).unwrap();

fn main() -> ! {
    classic::main(run)
}

fn run() -> Result<(), Stop> {
    let opts: Opts = classic::parse();
    classic::stop_on_signals()?;
    classic::lock(opts.queues.key)?;
    let own_queue = |key| own(|| make_queue(key), Queue::remove);
    let requests = own_queue(opts.queues.key)?;
    let answers = opts.queues.reply_key.map_or(Ok(requests), own_queue)?;
    let (key, pid) = (opts.queues.key, std::process::id());
    say(format!("{PROGRAM}: ready: key {key}, queue {}, pid {pid}", requests.id()));
    let mut server = Server::new(opts, requests, answers);
    let outcome = server.serve();
    complain(server.report());
    outcome
}

/// A new queue under a key; if there is one already, what is known of it.
fn make_queue(key: Key) -> Result<Queue, Stop> {
    let error = match Queue::create(key, Mode::new(0o600)) {
        Err(error) if error.already_exists() => error,
        made => return Ok(made?),
    };
    let Ok(queue) = Queue::open(key) else { return Err(error.into()) };
    let status = queue.status()?;
    let users: Vec<sysv_ipc::Pid> =
        [status.last_sender, status.last_receiver].into_iter().flatten().collect();
    let (id, messages) = (queue.id(), status.messages);
    let why = match users.iter().find(|&&pid| is_alive(Pid::from_raw(pid.as_raw()))) {
        Some(pid) => format!("in use: process {pid} uses queue {id}; choose another key"),
        None if users.is_empty() => {
            let uid = status.permissions.cuid;
            format!("taken: queue {id}, never used, was made by uid {uid}; choose another key")
        }
        None => format!(
            "taken: queue {id} is stale: who used it is dead, {messages} messages are left; \
             remove it with ipcrm -Q {key}"
        ),
    };
    Err(Stop::unavailable(format!("key {key} is {why}")))
}

struct Server {
    opts: Opts,
    requests: Queue,
    answers: Queue,
    /// Answers that did not fit, and since when.
    kept: VecDeque<(Instant, MessageBuffer)>,
    /// What lies in the full queue for others to collect, since when and how often.
    uncollected: HashMap<(MessageType, Vec<u8>), (Instant, usize)>,
    looked_at: Instant,
    started: Instant,
    count: Counters,
}

/// What the report at the end tells.
#[derive(Default)]
struct Counters {
    requests: u64,
    malformed: u64,
    sent: u64,
    delayed: u64,
    dropped: u64,
    dead: u64,
}

impl Server {
    fn new(opts: Opts, requests: Queue, answers: Queue) -> Self {
        let now = Instant::now();
        Self {
            opts,
            requests,
            answers,
            kept: VecDeque::new(),
            uncollected: HashMap::new(),
            looked_at: now,
            started: now,
            count: Counters::default(),
        }
    }

    /// Receives and answers until the queue is gone.
    fn serve(&mut self) -> Result<(), Stop> {
        let mut request = MessageBuffer::with_capacity(LARGEST);
        let only_requests = Select::Type(REQUEST);
        let mut idle = 0_u32;
        loop {
            // Waiting is right only while a request can come in: it alone ends the wait.
            let full = self.is_full();
            if full {
                self.make_room();
            } else {
                self.uncollected.clear(); // what is there the next time is something else
            }
            let received = if full || self.opts.nonblock {
                self.requests.try_receive(&mut request, only_requests)
            } else {
                self.requests.receive(&mut request, only_requests)
            };
            match received {
                Ok(()) => self.answer(&request),
                Err(ReceiveError::TooBig) => {
                    self.requests.receive_truncated(&mut request, only_requests)?;
                    self.refuse(&request, TOO_LONG, "too long");
                }
                Err(ReceiveError::Empty | ReceiveError::Interrupted) => {
                    pause(idle, full);
                    idle = idle.saturating_add(1);
                    continue;
                }
                Err(ReceiveError::Gone) if is_stopping() => return Ok(()),
                Err(ReceiveError::Gone) => {
                    return Err(Stop::failed("somebody else removed the queue"));
                }
                Err(error) => return Err(error.into()),
            }
            idle = 0;
        }
    }

    /// Whether answers wait for room, or the next request would have to.
    fn is_full(&self) -> bool {
        let no_room = || {
            let status = self.requests.status();
            status.is_ok_and(|status| status.bytes + LARGEST as u64 > status.max_bytes)
        };
        !self.kept.is_empty() || self.answers == self.requests && no_room()
    }

    fn answer(&mut self, request: &MessageBuffer) {
        match decode(request.text()) {
            Some((id, body)) => {
                self.count.requests += 1;
                self.send(id, OK, body);
            }
            None => self.refuse(request, MALFORMED, "malformed"),
        }
    }

    fn refuse(&mut self, request: &MessageBuffer, status: i32, why: &str) {
        self.count.requests += 1;
        self.count.malformed += 1;
        self.tell(&format!("refused a request: {why}"));
        if let Some(id) = request.text().first_chunk() {
            self.send(i32::from_ne_bytes(*id), status, why.as_bytes());
        }
    }

    /// Sends an answer, now or later. Never waits.
    fn send(&mut self, id: i32, status: i32, body: &[u8]) {
        let (queue, mtype) = if self.opts.queues.per_client {
            (Queue::from_id(QueueId::new(id)), Some(ANSWER))
        } else {
            (self.answers, answer_type(id))
        };
        let Some(mtype) = mtype else {
            self.count.malformed += 1;
            return self.tell(&format!("refused a request: no answer can be sent to id {id}"));
        };
        let answer = message(mtype, status, body);
        match queue.try_send(&answer) {
            Ok(()) => self.count.sent += 1,
            // A client's own queue is full because it does not collect: its loss, and no one else's.
            Err(SendError::Full) if !self.opts.queues.per_client && self.kept.len() < MAX_KEPT => {
                self.count.delayed += 1;
                self.kept.push_back((Instant::now(), answer));
            }
            // Removed: the next receive tells.
            Err(SendError::Gone) if !self.opts.queues.per_client => {}
            Err(error) => self.drop_answer(id.into(), &error.to_string()),
        }
    }

    /// Sends what was kept, and takes out what nobody collects.
    fn make_room(&mut self) {
        if self.looked_at.elapsed() >= Duration::from_millis(10) {
            self.looked_at = Instant::now();
            self.remove_uncollected();
        }
        while let Some((since, answer)) = self.kept.front() {
            match self.answers.try_send(answer) {
                Ok(()) => self.count.sent += 1,
                // Longer than what lies in the queue, which has to go first.
                Err(SendError::Full) if since.elapsed() < 2 * self.opts.keep => break,
                Err(SendError::Gone) => {}
                Err(error) => self.drop_answer(answer.mtype().get(), &error.to_string()),
            }
            self.kept.pop_front();
        }
    }

    /// Looks through the queue (`MSG_COPY`) for what has been there for too long.
    fn remove_uncollected(&mut self) {
        let mut found = HashMap::new();
        let mut copy = MessageBuffer::with_capacity(LARGEST);
        for index in 0.. {
            match self.answers.peek(&mut copy, index) {
                Ok(()) if copy.mtype() == REQUEST => {}
                Ok(()) => {
                    let answer = (copy.mtype(), copy.text().to_vec());
                    let since = self.uncollected.get(&answer).map(|&(since, _)| since);
                    found.entry(answer).or_insert((since.unwrap_or_else(Instant::now), 0)).1 += 1;
                }
                Err(ReceiveError::TooBig) => {} // none of ours
                Err(_) => break,
            }
        }
        found.retain(|(mtype, _), (since, times)| {
            let dead = i32::try_from(mtype.get()).is_ok_and(|pid| !is_alive(Pid::from_raw(pid)));
            if since.elapsed() < if dead { DEAD_GRACE } else { self.opts.keep } {
                return true;
            }
            for _ in 0..*times {
                if self.answers.try_receive(&mut copy, Select::Type(*mtype)).is_ok() {
                    self.count.dead += u64::from(dead);
                    let why = if dead { "no such process" } else { "not collected" };
                    self.drop_answer(mtype.get(), why);
                }
            }
            false
        });
        self.uncollected = found;
    }

    fn drop_answer(&mut self, id: i64, why: &str) {
        self.count.dropped += 1;
        self.tell(&format!("dropped an answer to {id}: {why}"));
    }

    fn tell(&self, what: &str) {
        if self.opts.verbose {
            complain(what);
        }
    }

    fn report(&self) -> String {
        let Counters { requests, malformed, sent, delayed, dropped, dead } = self.count;
        let seconds = self.started.elapsed().as_secs_f64();
        format!(
            "{requests} requests in {seconds:.1} s, {malformed} malformed; {sent} answers sent, \
             {delayed} waited for room, {dropped} dropped ({dead} of them: no such process)"
        )
    }
}

/// Lets others run, and sleeps when that was not enough.
fn pause(idle: u32, full: bool) {
    if idle < 100 && !full {
        thread::yield_now();
    } else {
        thread::sleep(Duration::from_millis(1));
    }
}
