//! The reply queues of a client, and a thread that interrupts waits on them if the server is dead.
//!
//! A wait in msgrcv(2) ends when a message arrives or the queue is removed (`EIDRM`). So deadlines,
//! dead servers and cancellation share one mechanism: note the reason, then remove the queue. This
//! needs no signal and no timer, which would belong to the whole process. The first wait starts the
//! thread, which ends when nobody has waited for a while.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use sysv_ipc::{
    Key, MessageBuffer, Mode, ProcessMark, Queue, QueueStatus, ReceiveError, Select, Uid,
};

use super::error::{Cause, Error};
use super::trusted_server::TrustedServer;
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::{Life, Observer};
use crate::sys::getpid;
use crate::wire::{Cookie, OwnerId};

const TICK: Duration = Duration::from_millis(200);

/// If a check is this late, we were stopped or starved: that time does not count as a wait.
const LATE: Duration = Duration::from_secs(1);

/// Ticks without a wait after which the thread ends.
const LINGER: u32 = 5;

/// After a wait of this long, check whether the server is alive.
const DOUBT_AFTER: Duration = Duration::from_millis(400);

/// A hundred years: an `Instant` cannot hold every timeout.
const LONGEST_POLL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Clones share the queues.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    cancelled: Condvar,
    epoch: Instant,
    /// The process that created this. A forked child has neither its thread nor its queues.
    maker: ProcessMark,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<Arc<Entry>>,
    is_cancelled: bool,
    has_thread: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    maker: ProcessMark,
    pub(super) queue: Queue,
    /// The server that is expected to answer. Its successor would have another request queue.
    server: TrustedServer,
    select: Select,
    /// Whether more questions than that of the request may follow.
    pub(super) session: bool,
    /// The lease's. None if there is no lease: then nothing proves who sends to the queue.
    pub(super) cookie: Option<Cookie>,
    timeout: Duration,
    /// Milliseconds from the watch's epoch to the start of the wait, plus 1; 0 while nobody waits.
    waiting_since: AtomicU64,
    has_answered: AtomicBool,
    child: OnceLock<OwnerId>,
    ended: OnceLock<Error>,
}

/// A reply queue under watch. It is removed on drop.
#[derive(Debug)]
pub(super) struct WatchedQueue {
    watch: Watch,
    entry: Arc<Entry>,
}

impl Deref for WatchedQueue {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Watch {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            cancelled: Condvar::new(),
            epoch: Instant::now(),
            maker: ProcessMark::current(),
        }))
    }

    /// Removes every reply queue, which ends the waits on them, and prevents new ones.
    pub(super) fn cancel(&self) {
        let mut state = self.0.lock();
        state.is_cancelled = true;
        for entry in &state.live {
            entry.end(Cause::Cancelled.into());
        }
        self.0.cancelled.notify_all();
    }

    /// Sleeps until the pause is over or the client is cancelled, which is an error.
    pub(super) fn sleep(&self, pause: Duration) -> Result<(), Error> {
        let lock = self.0.lock();
        let slept = self.0.cancelled.wait_timeout_while(lock, pause, |state| !state.is_cancelled);
        let (state, _) = slept.unwrap_or_else(PoisonError::into_inner);
        if state.is_cancelled { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    /// Creates a reply queue under the lock, so that a cancellation cannot miss it.
    pub(super) fn open(
        &self,
        mode: Mode,
        server: &TrustedServer,
        select: Select,
        session: bool,
        cookie: Option<Cookie>,
        timeout: Duration,
    ) -> Result<WatchedQueue, Error> {
        let mut state = self.0.lock();
        if state.is_cancelled {
            return Err(Cause::Cancelled.into());
        }
        let queue = Queue::create(Key::PRIVATE, mode)?;
        let entry = Arc::new(Entry {
            maker: ProcessMark::current(),
            queue,
            server: *server,
            select,
            session,
            cookie,
            timeout,
            waiting_since: AtomicU64::new(0),
            has_answered: AtomicBool::new(false),
            child: OnceLock::new(),
            ended: OnceLock::new(),
        });
        state.live.push(Arc::clone(&entry));
        Ok(WatchedQueue { watch: self.clone(), entry })
    }
}

impl WatchedQueue {
    /// Receives the next message. The wait ends at the timeout or when the server has died. False:
    /// the message does not fit, and stays.
    pub(super) fn receive(&self, message: &mut MessageBuffer) -> Result<bool, Error> {
        let watch = &self.watch.0;
        // Before the thread is looked for: it ends when nobody waits.
        let since = watch.epoch.elapsed().as_millis() as u64 + 1;
        self.waiting_since.store(since, Ordering::Release);
        let outcome = if watch.ensure_thread() {
            loop {
                match self.queue.receive(message, self.select) {
                    Err(ReceiveError::Interrupted) => {}
                    outcome => break outcome,
                }
            }
        } else {
            // Without the thread nobody could end a wait in msgrcv.
            let deadline = Instant::now() + self.timeout.min(LONGEST_POLL);
            self.queue.receive_until(message, self.select, deadline)
        };
        self.waiting_since.store(0, Ordering::Release);
        self.map_receive_error(outcome)
    }
}

impl Drop for WatchedQueue {
    fn drop(&mut self) {
        let mut state = self.watch.0.lock();
        self.entry.end(Cause::QueueRemoved.into());
        state.live.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

impl Shared {
    /// A poisoned lock is safe to use: no code here leaves the list half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a thread that ends waits. The system may refuse to create one.
    fn ensure_thread(self: &Arc<Self>) -> bool {
        if !self.maker.is_current() {
            return false;
        }
        let mut state = self.lock();
        if !state.has_thread {
            let shared = Arc::clone(self);
            let thread = thread::Builder::new().name("mqfs-watch".to_owned());
            state.has_thread = thread.spawn(move || shared.run()).is_ok();
        }
        state.has_thread
    }

    fn run(&self) {
        let (mut last, mut idle) = (self.epoch.elapsed(), 0);
        loop {
            thread::sleep(TICK);
            let mut state = self.lock();
            let is_waiting = |entry: &Arc<Entry>| entry.waiting_since.load(Ordering::Acquire) > 0;
            idle = if state.live.iter().any(is_waiting) { 0 } else { idle + 1 };
            if idle > LINGER {
                state.has_thread = false;
                return;
            }
            let now = self.epoch.elapsed();
            let pause = now.saturating_sub(std::mem::replace(&mut last, now));
            for entry in &state.live {
                if pause > LATE {
                    entry.exclude(pause, now);
                }
                if let Some(reason) = entry.reason_to_stop(now) {
                    entry.end(reason);
                }
            }
        }
    }
}

impl Entry {
    /// The user whose windows the client accepts. If it is root, also those of the client's user.
    pub(super) fn window_owner(&self) -> Uid {
        // Only root and this user can answer for an unknown server.
        if self.server.is_known { self.server.owner } else { Uid::ROOT }
    }

    /// Whether this process made the queue, nobody has ended its use, and the server is there.
    pub(super) fn is_usable(&self) -> bool {
        self.maker.is_current() && self.ended.get().is_none() && self.server.is_current()
    }

    /// Whether answers are frames: those of an mqfs server.
    pub(super) fn is_framed(&self) -> bool {
        matches!(self.select, Select::UpTo(_))
    }

    /// Receives a message behind the text in the buffer, if there is one. False: it does not fit.
    pub(super) fn try_receive(&self, message: &mut MessageBuffer) -> Option<Result<bool, Error>> {
        match self.queue.receive_appending(message, self.select) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted) => None,
            outcome => Some(self.map_receive_error(outcome)),
        }
    }

    fn map_receive_error(&self, outcome: Result<(), ReceiveError>) -> Result<bool, Error> {
        match outcome {
            Ok(()) => {
                self.has_answered.store(true, Ordering::Release);
                Ok(true)
            }
            Err(ReceiveError::TooBig) => Ok(false),
            Err(ReceiveError::TimedOut) => Err(Cause::TimedOut(self.timeout).into()),
            Err(ReceiveError::Os(error)) => Err(Cause::Receive(error).into()),
            Err(_) => Err(self.ended.get_or_init(|| Cause::QueueRemoved.into()).clone()),
        }
    }

    /// Removes the queue, which ends a wait on it, but not in a forked child. Call this under the
    /// lock, and only for a listed queue: after its removal, its id may soon be another queue's.
    fn end(&self, reason: Error) {
        let may_remove = self.maker.is_current() && !self.is_lost();
        if self.ended.set(reason).is_ok() && may_remove {
            let _ = self.queue.remove();
        }
    }

    /// Whether the server ended the session: it removed the queue, whose id may be another's now.
    pub(super) fn is_lost(&self) -> bool {
        if !self.session || !self.has_answered.load(Ordering::Acquire) {
            return false;
        }
        match (self.cookie, lease::peek(self.queue)) {
            // A kernel without MSG_COPY: there the server removes no queue.
            (None, _) | (_, Head::Unreadable(Errno::ENOSYS)) => false,
            (cookie, Head::Lease(lease)) => cookie != Some(lease.cookie),
            _ => true,
        }
    }

    /// Excludes the time in which this process, and perhaps the server, was stopped (SIGSTOP).
    fn exclude(&self, pause: Duration, now: Duration) {
        let [pause, now] = [pause, now].map(|time| time.as_millis() as u64);
        let later = |since| (since > 0).then(|| now.min(since + pause).max(1));
        // This changes nothing if the wait is over by now.
        let _ = self.waiting_since.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// Notes which process sends the answer: its pid may later be another process's.
    pub(super) fn identify_child(&self) {
        if self.child.get().is_none()
            && let Ok(status) = self.queue.status()
        {
            let _ = self.child(&status);
        }
    }

    /// The process that sends the answer, as first seen.
    fn child(&self, status: &QueueStatus) -> Option<&OwnerId> {
        if let Some(child) = self.child.get() {
            return Some(child); // in a session, we may have sent last ourselves
        }
        let sender = status.last_sender.filter(|&pid| pid != getpid())?;
        Some(self.child.get_or_init(|| Observer::here().identify(sender)))
    }

    fn reason_to_stop(&self, now: Duration) -> Option<Error> {
        let since = self.waiting_since.load(Ordering::Acquire).checked_sub(1)?;
        let waited = now.saturating_sub(Duration::from_millis(since));
        if waited >= self.timeout {
            return Some(Cause::TimedOut(self.timeout).into());
        }
        if waited < DOUBT_AFTER {
            return None;
        }
        // "No message left" and "last sender" must come from one snapshot.
        let status = self.queue.status().ok()?;
        // In a session, our own questions may be in it.
        let own = u64::from(self.select != Select::Any);
        if status.messages > own && !self.session {
            return None;
        }
        if self.has_answered.load(Ordering::Acquire) {
            let child = self.child(&status)?;
            let is_dead = matches!(Observer::here().life_here(child), Life::Dead(_));
            return is_dead.then(|| Cause::ChildDied.into());
        }
        let has_died = !self.server.is_current() || self.server.marked && self.server.is_dead();
        has_died.then(|| Cause::ServerDied.into())
    }
}
