//! The reply queues of a client, and what ends a wait on one: removing it.
//!
//! A wait in msgrcv ends when a message comes or the queue goes (`EIDRM`). So a deadline, a server
//! that died and a wish to stop are one mechanism: whoever notices takes down the reason and removes
//! the queue. No signal, no timer, nothing that belongs to the whole process. The thread that
//! notices is started by the first wait that lasts, so quick transfers never pay for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::getpid;
use sysv_ipc::{Pid, Uid};

use super::Error;
use crate::ownership::liveness::{Observer, Seen};
use crate::ownership::server_lock::{self, ServerState};
use sysv_ipc::{self, Key, MessageBuffer, OwnedQueue, Queue, QueueStatus, ReceiveError, Select};

/// How often waits are looked at.
const TICK: Duration = Duration::from_millis(200);

/// A look that comes this late says that this process stood still meanwhile, or that the machine is so
/// busy that the server is not to blame.
const LATE: Duration = Duration::from_secs(1);

/// For how many ticks there must be nothing to look at before the thread goes to sleep: to be woken
/// for every transfer costs more than a tick.
const LINGER: u32 = 5;

/// How long nothing must have come before the server's health is doubted.
const DOUBT_AFTER: Duration = Duration::from_millis(400);

/// The reply queues of one client.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
    epoch: Instant,
    /// The process that made it: a forked child has neither its thread nor its queues.
    maker: Pid,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<Arc<Entry>>,
    cancelled: bool,
    thread: Option<ThreadState>,
    /// Whether the thread sleeps until it is woken.
    asleep: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum ThreadState {
    Running,
    ToEnd,
}

/// What the watch knows of one reply queue.
#[derive(Debug)]
struct Entry {
    maker: Pid,
    queue: Queue,
    peer: Peer,
    timeout: Duration,
    /// Milliseconds from the watch's epoch to the beginning of the wait, plus 1; 0: nobody waits.
    waiting_since: AtomicU64,
    answered: AtomicBool,
    /// Who answers, once it was looked at.
    child: OnceLock<Seen>,
    ended: OnceLock<Error>,
}

/// Who is to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) key: Key,
    /// The request queue. A server that takes another one's place makes another one.
    pub(super) asked: Queue,
    pub(super) owner: Uid,
    /// Whether it takes the server lock: another program's server does not.
    pub(super) takes_lock: bool,
    /// Messages in the reply queue that are our own: the lease.
    pub(super) own_messages: u64,
}

/// Keeps a watch, and with it its thread, going.
#[derive(Debug, Clone)]
pub(super) struct WatchHandle(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Watch>);

/// A reply queue under watch. Removed when this goes out of scope.
#[derive(Debug)]
pub(super) struct Watched {
    watch: WatchHandle,
    entry: Arc<Entry>,
    queue: Option<OwnedQueue>,
}

impl WatchHandle {
    pub(super) fn new() -> Self {
        let watch = Watch {
            state: Mutex::default(),
            changed: Condvar::new(),
            epoch: Instant::now(),
            maker: getpid(),
        };
        Self(Arc::new(Owner(Arc::new(watch))))
    }

    fn watch(&self) -> &Arc<Watch> {
        &self.0.0
    }

    /// Removes every reply queue, now and for good: waits on them end, no new one is made.
    pub(super) fn cancel(&self) {
        let mut state = self.watch().lock();
        state.cancelled = true;
        for entry in state.live.iter().filter(|entry| entry.maker == getpid()) {
            entry.end(Error::Cancelled);
        }
        self.watch().changed.notify_all();
    }

    /// Sleeps, unless and until the client is cancelled.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(super) fn sleep(&self, pause: Duration) -> Result<(), Error> {
        let watch = self.watch();
        let asleep =
            watch.changed.wait_timeout_while(watch.lock(), pause, |state| !state.cancelled);
        let (state, _) = asleep.unwrap_or_else(PoisonError::into_inner);
        if state.cancelled { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Makes a reply queue. Nothing comes between making it and knowing of it.
    pub(super) fn open(
        &self,
        make: impl FnOnce() -> Result<OwnedQueue, sysv_ipc::Error>,
        peer: Peer,
        timeout: Duration,
    ) -> Result<Watched, Error> {
        let mut state = self.watch().lock();
        if state.cancelled {
            return Err(Error::Cancelled);
        }
        let queue = make()?;
        let entry = Arc::new(Entry {
            maker: getpid(),
            queue: *queue,
            peer,
            timeout,
            waiting_since: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            child: OnceLock::new(),
            ended: OnceLock::new(),
        });
        state.live.push(Arc::clone(&entry));
        if state.asleep {
            self.watch().changed.notify_all();
        }
        drop(state);
        Ok(Watched { watch: self.clone(), entry, queue: Some(queue) })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.thread.is_some() {
            state.thread = Some(ThreadState::ToEnd);
            self.0.changed.notify_all();
        }
    }
}

impl Watched {
    pub(super) fn queue(&self) -> Queue {
        self.entry.queue
    }

    /// Receives the next message, waiting at most the timeout, and no longer than there is hope.
    pub(super) fn receive(&self, message: &mut MessageBuffer, which: Select) -> Result<(), Error> {
        let watch = self.watch.watch();
        if !watch.ensure_thread() {
            return self.poll(message, which);
        }
        let since = watch.epoch.elapsed().as_millis() as u64 + 1;
        self.entry.waiting_since.store(since, Ordering::Release);
        let outcome = loop {
            match self.entry.queue.receive(message, which) {
                Err(ReceiveError::Interrupted) => {}
                outcome => break outcome,
            }
        };
        self.entry.waiting_since.store(0, Ordering::Release);
        self.settle(outcome)
    }

    /// Receives the next message without anybody to end the wait: by trying.
    fn poll(&self, message: &mut MessageBuffer, which: Select) -> Result<(), Error> {
        const PAUSE: Duration = Duration::from_millis(2);
        let start = Instant::now();
        loop {
            if let Some(outcome) = self.try_receive(message, which) {
                return outcome;
            }
            if start.elapsed() >= self.entry.timeout {
                return Err(Error::TimedOut(self.entry.timeout));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Receives a message if there is one.
    pub(super) fn try_receive(
        &self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Option<Result<(), Error>> {
        match self.entry.queue.try_receive(message, which) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted) => None,
            outcome => Some(self.settle(outcome)),
        }
    }

    /// Takes a look at who answers, so as to know it again.
    pub(super) fn look_at_child(&self) {
        if let Ok(status) = self.entry.queue.status() {
            let _ = self.entry.child(&status);
        }
    }

    /// Receives a message behind what is in the buffer, if there is one and it fits there.
    pub(super) fn receive_behind(
        &self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Option<Result<(), Error>> {
        match self.entry.queue.receive_behind(message, which) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted | ReceiveError::TooBig) => None,
            outcome => Some(self.settle(outcome)),
        }
    }

    fn settle(&self, outcome: Result<(), ReceiveError>) -> Result<(), Error> {
        match outcome {
            Ok(()) => {
                self.entry.answered.store(true, Ordering::Release);
                Ok(())
            }
            Err(ReceiveError::TooBig) => Err(Error::Corrupt("a message larger than any buffer")),
            Err(ReceiveError::Os(error)) => Err(Error::Broken(error)),
            Err(_) => Err(self.entry.ended.get_or_init(|| Error::QueueRemoved).clone()),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Under the lock, and only once: the id of a removed queue may soon be somebody else's.
        let mut state = self.watch.watch().lock();
        state.live.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
        if let Some(queue) = self.queue.take()
            && self.entry.ended.get().is_some()
        {
            let _ = queue.release();
        }
    }
}

impl Watch {
    /// Poisoned only if a panic came between two lines here, which leave the list whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a thread that ends waits; the process may have none left to give.
    fn ensure_thread(self: &Arc<Self>) -> bool {
        if getpid() != self.maker {
            return false;
        }
        let mut state = self.lock();
        if state.thread.is_none() {
            let watch = Arc::clone(self);
            let thread = thread::Builder::new().name("mqfs-watch".to_owned());
            if thread.spawn(move || watch.run()).is_ok() {
                state.thread = Some(ThreadState::Running);
            }
        }
        state.thread.is_some()
    }

    fn run(&self) {
        let mut state = self.lock();
        let (mut last, mut idle) = (self.epoch.elapsed(), 0);
        while state.thread != Some(ThreadState::ToEnd) {
            idle = if state.live.is_empty() { idle + 1 } else { 0 };
            state = if idle > LINGER {
                state.asleep = true;
                let mut woken = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                woken.asleep = false;
                woken
            } else {
                let waited = self.changed.wait_timeout(state, TICK);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
            let now = self.epoch.elapsed();
            let pause = now.saturating_sub(std::mem::replace(&mut last, now));
            for entry in &state.live {
                if pause > LATE {
                    entry.leave_out(pause, now);
                }
                if let Some(reason) = entry.hopeless(now) {
                    entry.end(reason);
                }
            }
        }
    }
}

impl Entry {
    /// Ends a wait on the queue. Only under the lock and while the queue is listed, so that the id is
    /// still ours.
    fn end(&self, reason: Error) {
        if self.ended.set(reason).is_ok() {
            let _ = self.queue.remove();
        }
    }

    /// Counts no time in which this process stood still (SIGSTOP), and perhaps the server with it.
    fn leave_out(&self, pause: Duration, now: Duration) {
        let [pause, now] = [pause, now].map(|time| time.as_millis() as u64);
        let later = |since| (since > 0).then(|| now.min(since + pause).max(1));
        // Nothing is changed if the wait is over by now.
        let _ = self.waiting_since.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// Who answers, as first seen: while nobody reads, its pid may become another's.
    fn child(&self, status: &QueueStatus) -> Option<&Seen> {
        let sender = status.last_sender.filter(|&pid| pid != getpid())?;
        Some(self.child.get_or_init(|| Seen::now(sender)))
    }

    /// Why there is no use in waiting on.
    fn hopeless(&self, now: Duration) -> Option<Error> {
        let since = self.waiting_since.load(Ordering::Acquire).checked_sub(1)?;
        let waited = now.saturating_sub(Duration::from_millis(since));
        if waited >= self.timeout {
            return Some(Error::TimedOut(self.timeout));
        }
        if waited < DOUBT_AFTER {
            return None;
        }
        // One snapshot, so that "nothing left to read" and "who sent last" belong together.
        let status = self.queue.status().ok()?;
        if status.messages > self.peer.own_messages {
            return None;
        }
        if self.answered.load(Ordering::Acquire) {
            let child = self.child(&status)?;
            return Observer::new().is_over(child).then_some(Error::ChildDied);
        }
        let Peer { key, asked, owner, takes_lock, .. } = self.peer;
        let died = || takes_lock && server_lock::server_state(key, owner) == ServerState::Dead;
        (Queue::open(key) != Ok(asked) || died()).then_some(Error::ServerDied)
    }
}
