//! The server: one well-known request queue, and a child for every request.
//!
//! The parent receives, decodes and admits, and forks. The child becomes the caller, opens the file
//! below the export's root and streams it into the caller's reply queue, then ends. The parent owns
//! the request queue and the server lock and removes both; a reply queue belongs to its client. In
//! the manner of TLPI section 46.8.

mod admission;
mod child_death_notices;
mod children;
mod config;
mod confine;
mod error;
mod loggable;
mod request_handler;
mod resolve;
mod send;
mod takeover;

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::{geteuid, getpid};

use crate::counters::Writer;
use crate::ownership::server_lock::ServerLock;
use crate::server::confine::group_cache::Groups;
use crate::sys::{self, child_exits as ended, signals};
use crate::wire::{MAX_REQUEST, Request};
use sysv_ipc::{MessageBuffer, MessageType, ReceiveError, Select};

pub use config::{Config, Housekeeping, PlainPolicy};
pub use error::Error;

use admission::refusal_log::{Refusal, Refusals};
use admission::{Admitted, Policy, Refused};
use children::Children;
use confine::sandbox::Sandbox;
use request_handler::RequestHandler;
use resolve::export::Export;
use send::queue_capacity::QueueCapacity;
use takeover::request_queue::{RequestQueue, StopRequest};

/// A server that holds its lock and has its request queue, and can be asked.
///
/// ```no_run
/// use mqfs::server::{Config, Server};
///
/// let mut config = Config::default();
/// config.root = Some("/srv/files".into());
/// let server = Server::start(config)?;
/// let stopper = server.stopper(); // for another thread, or a signal handler's
/// println!("{server}");
/// server.run()?;
/// # Ok::<(), mqfs::server::Error>(())
/// ```
///
/// # What it takes of the process
///
/// One server runs in a process, on one thread, and expects the process to itself: it waits for *all*
/// children, handles `SIGCHLD` and `SIGALRM`, uses `ITIMER_REAL`, and forks children that do not
/// exec. Other threads must hold `SIGCHLD` and `SIGALRM` back, and no lock that logging takes.
///
/// From [`start`](Self::start) on, and for good, the thread and those that it starts can read only
/// what lies below the root, what looking up users takes, and /proc; they can write no file, run no
/// program, and signal no process but children (Landlock, as far as the kernel has it). A second
/// server there serves only what the first could. The whole process cannot be traced, and leaves no
/// core; root's leaves its session keyring. So a server stays on its thread:
///
/// ```compile_fail,E0277
/// # use mqfs::server::{Config, Server};
/// let server = Server::start(Config::default()).unwrap();
/// std::thread::spawn(move || server.run());
/// ```
#[derive(Debug)]
pub struct Server {
    // Dropped in this order: the lock must outlive the queue that it guards.
    queue: RequestQueue,
    lock: ServerLock,
    handler: RequestHandler,
    config: Config,
    stopping: Arc<StopRequest>,
    policy: Policy,
    children: Children,
    room: QueueCapacity,
    refusals: Refusals,
    last_housekeeping: Option<Instant>,
    alarm: Option<Alarm>,
    /// What holds the thread that it started on must hold the one that it runs on.
    not_send: PhantomData<*const ()>,
}

/// What the timer is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Children,
    House,
}

/// Stops a server, from another thread than the one that it runs on.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<StopRequest>);

impl Stopper {
    /// Removes the request queue and lets children finish. Called again, ends them at once.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// What a server that can be asked says of itself.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, queue) = (self.config.key, self.queue.id());
        let root = crate::escape::escape(self.config.root());
        write!(f, "ready: key {key}, queue {queue}, root {root}, pid {}", getpid())
    }
}

impl Server {
    /// Takes the server lock and makes the request queue.
    ///
    /// # Errors
    /// [`Error`]: the mode is none that a server can have, or takes a root that was not given; the key
    /// is in use, the root cannot be opened, or the namespace has no queue left.
    pub fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let policy = Policy::of(&config);
        policy.warn();
        let export = Export::open_root(config.root())?;
        let lock = ServerLock::take(config.key)?;
        let stopping = Arc::new(StopRequest::new(config.key));
        let queue = RequestQueue::create(config.key, config.mode, Arc::clone(&stopping))?;
        ended::collect(config.max_children() + 2)
            .map_err(|errno| Error::Os { call: "sigaction", errno })?;
        // The first checksum looks at what the processor can do, which in a virtual machine takes as
        // long as half a fork: once here, not in every child.
        let _ = crc32fast::Hasher::new();
        let figures = Writer::publish(config.key, queue.id(), config.max_children());
        let children = Children::new(config.max_children(), config.stall_timeout);
        let sandbox = Sandbox::enter(&export)
            .map_err(|errno| Error::Os { call: "landlock_create_ruleset", errno })?;
        let groups = geteuid().is_root().then(Groups::new).transpose();
        let groups = groups.map_err(|errno| Error::Os { call: "mmap", errno })?;
        let groups = RefCell::new(groups);
        Ok(Self {
            queue,
            lock,
            handler: RequestHandler {
                export,
                sandbox,
                groups,
                stall_timeout: config.stall_timeout,
                figures,
            },
            policy,
            children,
            room: QueueCapacity::new(config.max_children(), config.max_per_user()),
            refusals: Refusals::default(),
            config,
            stopping,
            last_housekeeping: None,
            alarm: None,
            not_send: PhantomData,
        })
    }

    /// What stops this server.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stopping))
    }

    /// Serves until it is stopped, then lets its children finish.
    ///
    /// # Errors
    /// The request queue is lost and cannot be made again.
    pub fn run(mut self) -> Result<(), Error> {
        self.stopping.runs_here();
        // A byte more than a request can have, so that a longer one shows.
        let mut message = MessageBuffer::with_capacity(MAX_REQUEST + 1);
        let served = self.serve(&mut message);
        self.stopping.remove_queue();
        self.handler.figures.withdraw();
        drop(self.lock); // the next server need not wait for children that finish
        self.children.drain(self.config.drain_timeout, || self.stopping.is_urgent());
        self.handler.figures.children(self.children.requests(), self.children.died());
        served
    }

    fn serve(&mut self, message: &mut MessageBuffer) -> Result<(), Error> {
        loop {
            self.children.settle();
            self.handler.figures.children(self.children.requests(), self.children.died());
            self.housekeep();
            self.set_alarm()?;
            if self.stopping.is_stopping() {
                return Ok(());
            }
            if self.children.are_too_many() {
                self.children.wait_for_room(|| self.stopping.is_stopping());
                // Who does not receive is not told that the queue has gone.
                if !self.stopping.is_stopping() && !self.queue.is_ours() {
                    self.recreate_queue()?;
                }
                continue;
            }
            match self.queue.receive_truncated(message, Select::UpTo(MessageType::MAX)) {
                Ok(()) => self.answer(message.text()),
                Err(ReceiveError::Interrupted) => {}
                Err(ReceiveError::Gone) if self.stopping.is_stopping() => return Ok(()),
                Err(ReceiveError::Gone) => self.recreate_queue()?,
                Err(ReceiveError::Os(error)) => return Err(error.into()),
                Err(_) => {} // neither empty nor too big: it waits, and truncates
            }
        }
    }

    /// Ends the wait for a request when there is something else to see to: at once for a signal, but
    /// one that comes just before the wait begins ends nothing. An idle server sleeps until it is to
    /// keep house.
    fn set_alarm(&mut self) -> Result<(), Error> {
        let alarm = if self.children.need_looking_after() { Alarm::Children } else { Alarm::House };
        if self.alarm.replace(alarm) == Some(alarm) {
            return Ok(());
        }
        let (first, every) = match (alarm, self.config.housekeeping) {
            (Alarm::Children, _) => (Children::ROUND, Children::ROUND),
            (Alarm::House, Some(house)) => {
                let since = self.last_housekeeping.map_or(Duration::ZERO, |last| last.elapsed());
                (house.every.saturating_sub(since).max(Duration::from_millis(1)), house.every)
            }
            (Alarm::House, None) => (Duration::ZERO, Duration::ZERO),
        };
        signals::tick(first, every).map_err(|errno| Error::Os { call: "setitimer", errno })
    }

    /// Another server may have removed it, if the lock was removed first: then that one stays. Where
    /// the namespace has no queue left, waits until it has.
    fn recreate_queue(&mut self) -> Result<(), Error> {
        let mut told = false;
        while !self.stopping.is_stopping() {
            self.lock.hold_on()?;
            match self.queue.recreate() {
                Ok(()) => {
                    self.handler.figures.name_queue(self.queue.id());
                    let queue = self.queue.id().get();
                    tracing::warn!(queue, "the request queue was removed; made a new one");
                    break;
                }
                Err(error @ Error::NoQueueLeft(_)) if !told => {
                    tracing::error!(%error, "the request queue was removed; no room for a new one");
                    told = true;
                }
                Err(Error::NoQueueLeft(_)) => {}
                Err(error) => return Err(error),
            }
            self.children.settle();
            self.housekeep(); // orphans make room
            ended::wait_unless(|| self.stopping.is_stopping(), Some(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// decode → admit → fork
    fn answer(&mut self, text: &[u8]) {
        let received = Instant::now();
        self.handler.figures.received();
        let request = match Request::decode(text) {
            Ok(request) => request,
            Err(malformed) => return self.count(Refusal::Malformed(malformed), None),
        };
        let admitted = self.policy.admit(&request, self.queue.id());
        if let Err(refused) = admitted.and_then(|admitted| self.fork(admitted, received)) {
            refused.tell_caller();
            self.count(refused.reason, Some(&request));
        }
    }

    fn count(&mut self, refusal: Refusal, request: Option<&Request<'_>>) {
        self.handler.figures.refused(refusal.into());
        self.refusals.count(refusal, request);
    }

    fn fork(&mut self, mut admitted: Admitted<'_>, received: Instant) -> Result<(), Refused> {
        let caller = admitted.caller.uid;
        self.children.settle(); // one that ended meanwhile keeps nobody's place
        if self.children.answering(caller) >= self.config.max_per_user() {
            return Err(admitted.refuse(Refusal::UserBusy(caller)));
        }
        self.room.give(caller, &mut admitted.reply);
        let pid = sys::fork_child(|| self.handler.answer(admitted, received))
            .map_err(|errno| admitted.refuse(Refusal::ForkFailed(errno)))?;
        self.children.started(pid, caller, admitted.reply);
        self.handler.figures.children(self.children.requests(), self.children.died());
        Ok(())
    }

    fn housekeep(&mut self) {
        let Some(Housekeeping { every, task }) = self.config.housekeeping else { return };
        let due = self.last_housekeeping.is_none_or(|last| last.elapsed() >= every);
        if !due || self.children.keeps_house() {
            return;
        }
        self.last_housekeeping = Some(Instant::now());
        let work = || {
            task();
            sys::exit_now(0)
        };
        match sys::fork_child(work) {
            Ok(pid) => self.children.started_housekeeping(pid),
            Err(errno) => tracing::warn!(%errno, "housekeeping put off: fork failed"),
        }
    }
}
