//! The server: one well-known request queue, and a forked child for each request.
//!
//! The design is that of TLPI section 46.8. The parent owns the request queue and the server lock
//! and removes both (`takeover`); a reply queue belongs to its client.
//!
//! The stages of a request: `handle` decodes it, and `admission` admits it, if need be after a wait
//! for a place among the `children`, for which a session may have to make way. `request_handler`
//! answers it in a child. There `confine` becomes the caller, `send/open` opens what
//! the question names (`resolve`), `confine/sandbox` seals the child, and `send/answer` sends. The
//! child of a `session` does the same for each question, except that it is not sealed.

mod admission;
mod child;
mod child_death_notices;
mod children;
mod config;
mod confine;
mod error;
mod loggable;
mod request_handler;
mod request_log;
mod resolve;
mod send;
mod session;
mod takeover;

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use sysv_ipc::{MessageBuffer, MessageType, ReceiveError, Select};

use crate::counters::{RefusalReason, Writer};
use crate::escape::escape;
use crate::reaper;
use crate::sys::signals::{self, Blocked};
use crate::sys::{self, Moment, StopRequest, child_exits, geteuid, getpid};
use crate::wire::{MAX_REQUEST, Request};

pub use config::{Config, PlainPolicy};
pub use error::Error;

use admission::{Admitted, Policy, Refusal, RefusalLog};
use child::Child;
use children::Children;
use confine::{GroupFinder, Sandbox};
use request_handler::RequestHandler;
use request_log::Served;
use resolve::Export;
use send::AnswerWriter;
use takeover::{RequestQueue, ServerLock, publish_counters};

/// A server that holds its lock, has its request queue, and is ready to run.
///
/// ```no_run
/// use mqfs::server::{Config, Server};
///
/// let mut config = Config::default();
/// config.root = Some("/srv/files".into());
/// let server = Server::start(config)?;
/// let stopper = server.stopper(); // for another thread, such as one that waits for signals
/// println!("{server}");
/// server.run()?;
/// # Ok::<(), mqfs::server::Error>(())
/// ```
///
/// # What it does to the process
///
/// Run one server in a process, and nothing else. It waits for *all* children, handles `SIGCHLD`
/// and `SIGALRM`, uses `ITIMER_REAL`, and forks children that do not exec. Other threads must block
/// these signals, and must not hold a lock that logging needs.
///
/// [`start`](Self::start) restricts its thread, and those that this one starts, for good (Landlock,
/// as far as the kernel supports it): they read only /proc and what is below the root, write no
/// files, run no programs, and signal only their children. Nobody can trace the process, it leaves
/// no core dump, and root's leaves its session keyring. So a server must stay on its thread:
///
/// ```compile_fail,E0277
/// # use mqfs::server::{Config, Server};
/// let server = Server::start(Config::default()).unwrap();
/// std::thread::spawn(move || server.run());
/// ```
#[repr(align(4096))] // on one page: after each fork, the first write to a page copies it
pub struct Server {
    // The lock must outlive the queue that it guards: fields are dropped in this order.
    queue: RequestQueue,
    lock: ServerLock,
    handler: RequestHandler,
    counters: Rc<Writer>,
    config: Rc<Config>,
    stop: Arc<StopRequest>,
    policy: Policy,
    children: Children,
    message: MessageBuffer,
    refusals: RefusalLog,
    last_reaping: Option<Instant>,
    /// Whether the timer is set for the children, or for the next reaping. None: not set yet.
    alarm_for_children: Option<bool>,
    last_attention: Option<Instant>,
    /// Keeps the server on its first thread (`!Send`): the restrictions hold for no other thread.
    not_send: PhantomData<*const ()>,
}

/// Stops a server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<StopRequest>);

impl Stopper {
    /// Removes the request queue and lets children finish. A second call ends them at once.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// The line that a server prints when it is ready.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, queue) = (self.config.key, self.queue.id());
        let root = escape(self.config.root());
        write!(f, "ready: key {key}, queue {queue}, root {root}, pid {}", getpid())
    }
}

impl Server {
    /// Takes the server lock, makes the request queue, and restricts this thread.
    pub fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let config = Rc::new(config);
        let policy = Policy::new(&config);
        policy.warn();
        let export = Export::open_root(config.root())?;
        let lock = ServerLock::take(config.key)?;
        // From here on, an alarm does not kill the owner of a queue.
        signals::tick(Duration::ZERO).map_err(Error::os("setitimer"))?;
        let stop = Arc::new(StopRequest::new(config.key));
        let queue = RequestQueue::create(&config, Arc::clone(&stop))?;
        // The first checksum detects the CPU's features, for as long as half a fork takes.
        let _ = crc32fast::Hasher::new();
        let counters = Rc::<Writer>::default();
        publish_counters(&counters, &config, queue.id(), false);
        let sandbox = Sandbox::enter(&export).map_err(Error::os("landlock_create_ruleset"))?;
        // What is written to for every request lies side by side, on few pages: after each fork,
        // the first write to a page copies it.
        child_exits::collect(config.max_children() + 2).map_err(Error::os("sigaction"))?;
        let children = Children::new(Rc::clone(&config), Rc::clone(&counters));
        // One byte more than the longest valid request, so that longer ones are noticed.
        let message = MessageBuffer::with_capacity(MAX_REQUEST + 1);
        Ok(Self {
            queue,
            lock,
            handler: RequestHandler {
                server: getpid(),
                config: Rc::clone(&config),
                export,
                sandbox,
                user: geteuid(),
                groups: GroupFinder::of_root(),
                most_windows: config.most_windows(),
                counters: Rc::clone(&counters),
                buffer: RefCell::new(Some(AnswerWriter::buffer())),
            },
            counters,
            policy,
            children,
            message,
            refusals: RefusalLog::default(),
            config,
            stop,
            last_reaping: None,
            alarm_for_children: None,
            last_attention: None,
            not_send: PhantomData,
        })
    }

    /// Returns a handle that stops this server from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Lets these signals stop this server, and unblocks them in this thread: block them before the
    /// start, so that none of them kills the owner of a queue. A second one ends the children at
    /// once. `EINVAL`: a number is no signal, or one that cannot be caught. One server of a process
    /// can be stopped so.
    pub fn stop_on_signals(&self, signals: impl IntoIterator<Item = i32>) -> Result<(), Error> {
        self.stop.stop_on(signals).map_err(Error::os("sigaction"))
    }

    /// Serves until it is asked to stop, then lets its children finish. Fails if a system call
    /// fails, or if somebody removes the request queue and it cannot be made again.
    pub fn run(self) -> Result<(), Error> {
        self.run_with_notice(|| ())
    }

    /// As [`run`](Self::run). Calls `stopping` before it waits for its children.
    pub(crate) fn run_with_notice(mut self, stopping: impl FnOnce()) -> Result<(), Error> {
        if geteuid() != self.handler.user {
            // Its children would act as another user than the one that it was started for.
            return Err(Error::os("geteuid")(Errno::EPERM));
        }
        self.stop.will_wake_this_thread();
        let mut message = std::mem::replace(&mut self.message, MessageBuffer::with_capacity(0));
        let outcome = self.serve(&mut message);
        self.stop.remove_queue();
        self.counters.withdraw();
        drop(self.lock); // the next server need not wait for our children
        stopping();
        self.children.drain(self.config.drain_timeout, || self.stop.is_urgent());
        outcome
    }

    #[inline(never)] // the locals of main lie on many pages of the stack
    fn serve(&mut self, message: &mut MessageBuffer) -> Result<(), Error> {
        let mut held = None;
        loop {
            if held.is_some() {
                child_exits::collect_now();
            }
            self.children.reap_ended();
            self.remove_orphans_if_due();
            self.set_alarm()?;
            if self.stop.is_stopping() {
                return Ok(());
            }
            match self.receive(message, &mut held) {
                Ok(()) => self.handle(message.text())?,
                Err(ReceiveError::Interrupted) => {}
                Err(ReceiveError::Gone) if self.stop.is_stopping() => return Ok(()),
                Err(ReceiveError::Gone) => self.recreate_queue()?,
                Err(ReceiveError::Os(error)) => return Err(error.into()),
                Err(_) => {} // Empty and TooBig cannot happen: it waits, and truncates
            }
        }
    }

    /// Receives a request. While requests wait, `held` blocks `SIGCHLD`, so that no handler runs
    /// for each child that ends: [`serve`](Self::serve) collects them.
    fn receive(
        &self,
        message: &mut MessageBuffer,
        held: &mut Option<Blocked>,
    ) -> Result<(), ReceiveError> {
        const ANY: Select = Select::UpTo(MessageType::MAX);
        match self.queue.try_receive(message, ANY) {
            Err(ReceiveError::Empty | ReceiveError::TooBig) => {
                *held = None;
                self.queue.receive_truncated(message, ANY)
            }
            outcome => {
                held.get_or_insert_with(|| Blocked::new(SigSet::from(Signal::SIGCHLD)));
                outcome
            }
        }
    }

    /// Sets the timer that interrupts the wait for a request. It runs on for a round after the last
    /// child: to set it twice for each request would cost more than one needless alarm.
    fn set_alarm(&mut self) -> Result<(), Error> {
        if self.children.need_attention() {
            self.last_attention = Some(Instant::now());
        }
        let recent = |last: Instant| last.elapsed() < Children::ROUND;
        let for_children = self.last_attention.is_some_and(recent);
        if self.alarm_for_children.replace(for_children) == Some(for_children) {
            return Ok(());
        }
        let wait = if for_children {
            Children::ROUND
        } else if let Some(interval) = self.config.reap_interval {
            let elapsed = self.last_reaping.map_or(Duration::ZERO, |last| last.elapsed());
            interval.saturating_sub(elapsed).max(Duration::from_millis(1))
        } else {
            Duration::ZERO // no alarm
        };
        signals::tick(wait).map_err(Error::os("setitimer"))
    }

    /// Makes the request queue again after somebody removed it, unless another server took the lock
    /// meanwhile. If the namespace has no queue left, waits until one is free.
    fn recreate_queue(&mut self) -> Result<(), Error> {
        let mut logged = false;
        while !self.stop.is_stopping() {
            self.lock.retake_if_lost()?;
            match self.queue.recreate(&self.config) {
                Ok(()) => {
                    self.counters.name_queue(self.queue.id());
                    let queue = self.queue.id().get();
                    tracing::warn!(queue, "the request queue was removed; made a new one");
                    break;
                }
                Err(error @ Error::NoQueueLeft(_)) if !std::mem::replace(&mut logged, true) => {
                    tracing::error!(
                        %error,
                        "the request queue was removed; no room for a new one: mqfs-reap removes \
                         orphaned queues, raising kernel.msgmni makes room"
                    );
                }
                Err(Error::NoQueueLeft(_)) => {}
                Err(error) => return Err(error),
            }
            self.children.reap_ended();
            self.remove_orphans_if_due(); // which may free a queue
            child_exits::wait_unless(|| self.stop.is_stopping(), Some(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Waits until another child may be forked.
    fn wait_for_place(&mut self) -> Result<(), Error> {
        loop {
            self.children.reap_ended();
            if !self.children.are_at_limit() || self.stop.is_stopping() {
                return Ok(());
            }
            self.remove_orphans_if_due();
            self.children.wait_for_place(|| self.stop.is_stopping());
            // We are not blocked in msgrcv here, so EIDRM cannot tell us; check explicitly.
            if !self.stop.is_stopping() && !self.queue.exists() {
                self.recreate_queue()?;
            }
        }
    }

    /// Decodes a request, waits for a place, admits it, and forks a child that answers it.
    fn handle(&mut self, text: &[u8]) -> Result<(), Error> {
        let received = Moment::now();
        let queue = self.queue.id(); // there may be a new queue after the wait
        self.counters.received();
        let request = Request::decode(text);
        let admit = |policy: &Policy| match &request {
            Ok(request) => policy.admit(request, queue),
            Err(malformed) => Err((*malformed).into()),
        };
        let mut outcome = admit(&self.policy);
        // Nobody makes way for a request that will be refused.
        let per_user = self.config.max_per_user();
        if let Ok(admitted) = &outcome
            && self.children.are_at_limit()
            && (per_user >= self.config.max_children()
                || self.children.of(admitted.caller.uid).count() < per_user)
        {
            self.wait_for_place()?;
            if self.stop.is_stopping() {
                return Ok(());
            }
            outcome = admit(&self.policy); // its client may have left meanwhile
        }
        if let Err(refusal) = outcome.and_then(|admitted| self.fork(admitted, received)) {
            refusal.tell_caller();
            self.counters.refused(refusal.reason);
            self.refusals.log(&refusal, request.as_ref().ok());
        }
        Ok(())
    }

    fn fork(&mut self, admitted: Admitted<'_>, received: Moment) -> Result<(), Refusal> {
        let caller = admitted.caller.uid;
        self.children.reap_ended(); // a child that ended frees its place
        if self.children.of(caller).count() >= self.config.max_per_user() {
            self.children.make_way(Some(caller));
            let is_hung = self.children.of(caller).any(Child::is_hung);
            let reason = if is_hung { RefusalReason::UserHung } else { RefusalReason::UserBusy };
            return Err(admitted.refuse(reason, Some(format!("uid {caller}"))));
        }
        let served = Served::new(&admitted);
        let may_log =
            tracing::enabled!(tracing::Level::INFO) && self.children.log_limit.admits(&served);
        let admitted = Admitted { may_log, ..admitted };
        let run = || self.handler.run(&admitted, received);
        let pid = sys::fork_child(run)
            .map_err(|errno| admitted.refuse(RefusalReason::ForkFailed, Some(errno.to_string())))?;
        self.children.started(pid, Some(served));
        Ok(())
    }

    fn remove_orphans_if_due(&mut self) {
        let Some(interval) = self.config.reap_interval else { return };
        let due = self.last_reaping.is_none_or(|last| last.elapsed() >= interval);
        if !due || self.children.are_reaping() {
            return;
        }
        if self.last_reaping.replace(Instant::now()).is_some() {
            publish_counters(&self.counters, &self.config, self.queue.id(), true);
        }
        let reap = || {
            reaper::sweep();
            sys::exit_now(0)
        };
        match sys::fork_child(reap) {
            Ok(pid) => self.children.started(pid, None),
            Err(errno) => tracing::warn!(%errno, "removing orphans put off: fork failed"),
        }
    }
}
