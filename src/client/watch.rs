//! The reply queues of a client, and a thread that ends waits on them.
//!
//! A wait in msgrcv(2) ends when a message arrives or the queue is removed (`EIDRM`). So deadlines,
//! dead servers and cancellation share one mechanism: note the reason, then remove the queue. This
//! needs no signal and no timer, which would belong to the whole process. The first wait that lasts
//! starts the thread, so quick transfers do not pay for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Cause, Error};
use crate::ownership::liveness::{Observer, Seen};
use crate::ownership::server_lock::{self, ServerState};
use crate::sys::getpid;
use sysv_ipc::{
    Key, MessageBuffer, OwnedQueue, ProcessMark, Queue, QueueStatus, ReceiveError, Select, Uid,
};

/// How often the thread checks every wait.
const TICK: Duration = Duration::from_millis(200);

/// If a check comes this late, this process was stopped meanwhile, or the machine is too busy to
/// blame the server.
const LATE: Duration = Duration::from_secs(1);

/// How many ticks without a queue the thread stays awake. Waking it for every transfer would cost
/// more than the ticks.
const LINGER: u32 = 5;

/// After a wait of this long, check whether the server is alive.
const DOUBT_AFTER: Duration = Duration::from_millis(400);

/// The reply queues of one client.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
    epoch: Instant,
    /// The process that created this. A forked child has neither its thread nor its queues.
    maker: ProcessMark,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<Arc<Entry>>,
    cancelled: bool,
    thread: Option<ThreadState>,
    /// Whether the thread sleeps until somebody wakes it.
    asleep: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum ThreadState {
    Running,
    Stopping,
}

/// One reply queue under watch.
#[derive(Debug)]
struct Entry {
    maker: ProcessMark,
    queue: Queue,
    peer: Peer,
    timeout: Duration,
    /// Milliseconds from the watch's epoch to the start of the wait, plus 1; 0 while nobody waits.
    waiting_since: AtomicU64,
    has_answered: AtomicBool,
    /// The process that sends the answer, once identified.
    child: OnceLock<Seen>,
    /// Why the wait was ended.
    ended: OnceLock<Error>,
}

/// The server that is expected to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) key: Key,
    /// A server that replaces another one creates another request queue.
    pub(super) request_queue: Queue,
    pub(super) owner: Uid,
    /// Whether it holds the server lock. Another program's server does not.
    pub(super) takes_lock: bool,
    /// How many messages in the reply queue are our own: 1 with a lease.
    pub(super) own_messages: u64,
}

/// A shared watch. Its thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(super) struct WatchHandle(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Watch>);

/// A reply queue under watch. It is removed on drop.
#[derive(Debug)]
pub(super) struct WatchedQueue {
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
            maker: ProcessMark::current(),
        };
        Self(Arc::new(Owner(Arc::new(watch))))
    }

    fn watch(&self) -> &Arc<Watch> {
        &self.0.0
    }

    /// Removes every reply queue, which ends the waits on them, and prevents new ones.
    pub(super) fn cancel(&self) {
        let mut state = self.watch().lock();
        state.cancelled = true;
        for entry in state.live.iter().filter(|entry| entry.maker.is_current()) {
            entry.end(Cause::Cancelled.into());
        }
        self.watch().changed.notify_all();
    }

    /// Sleeps until the pause is over or the client is cancelled, which is an error.
    pub(super) fn sleep(&self, pause: Duration) -> Result<(), Error> {
        let watch = self.watch();
        let asleep =
            watch.changed.wait_timeout_while(watch.lock(), pause, |state| !state.cancelled);
        let (state, _) = asleep.unwrap_or_else(PoisonError::into_inner);
        if state.cancelled { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    /// Creates a reply queue under the lock, so that a cancellation cannot miss it.
    pub(super) fn open(
        &self,
        make: impl FnOnce() -> Result<OwnedQueue, sysv_ipc::Error>,
        peer: Peer,
        timeout: Duration,
    ) -> Result<WatchedQueue, Error> {
        let mut state = self.watch().lock();
        if state.cancelled {
            return Err(Cause::Cancelled.into());
        }
        let queue = make()?;
        let entry = Arc::new(Entry {
            maker: ProcessMark::current(),
            queue: *queue,
            peer,
            timeout,
            waiting_since: AtomicU64::new(0),
            has_answered: AtomicBool::new(false),
            child: OnceLock::new(),
            ended: OnceLock::new(),
        });
        state.live.push(Arc::clone(&entry));
        if state.asleep {
            self.watch().changed.notify_all();
        }
        drop(state);
        Ok(WatchedQueue { watch: self.clone(), entry, queue: Some(queue) })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.thread.is_some() {
            state.thread = Some(ThreadState::Stopping);
            self.0.changed.notify_all();
        }
    }
}

impl WatchedQueue {
    pub(super) fn queue(&self) -> Queue {
        self.entry.queue
    }

    /// Receives the next message. The wait ends at the timeout or when the server has died.
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
        self.map_receive_error(outcome)
    }

    /// Receives the next message by polling: without the thread nobody could end a wait.
    fn poll(&self, message: &mut MessageBuffer, which: Select) -> Result<(), Error> {
        const PAUSE: Duration = Duration::from_millis(2);
        let start = Instant::now();
        loop {
            if let Some(outcome) = self.try_receive(message, which) {
                return outcome;
            }
            if start.elapsed() >= self.entry.timeout {
                return Err(Cause::TimedOut(self.entry.timeout).into());
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
            outcome => Some(self.map_receive_error(outcome)),
        }
    }

    /// Identifies the process that sends the answer, to recognise it later.
    pub(super) fn identify_child(&self) {
        if let Ok(status) = self.entry.queue.status() {
            let _ = self.entry.child(&status);
        }
    }

    /// Receives a message behind the text in the buffer, if there is one and it fits.
    pub(super) fn receive_appending(
        &self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Option<Result<(), Error>> {
        match self.entry.queue.receive_appending(message, which) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted | ReceiveError::TooBig) => None,
            outcome => Some(self.map_receive_error(outcome)),
        }
    }

    fn map_receive_error(&self, outcome: Result<(), ReceiveError>) -> Result<(), Error> {
        match outcome {
            Ok(()) => {
                self.entry.has_answered.store(true, Ordering::Release);
                Ok(())
            }
            Err(ReceiveError::TooBig) => Err(Error::corrupt("a message larger than any buffer")),
            Err(ReceiveError::Os(error)) => Err(Cause::Receive(error).into()),
            Err(_) => Err(self.entry.ended.get_or_init(|| Cause::QueueRemoved.into()).clone()),
        }
    }
}

impl Drop for WatchedQueue {
    fn drop(&mut self) {
        // Remove the queue under the lock, and only once: its id may soon be another queue's.
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
        while state.thread != Some(ThreadState::Stopping) {
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
    /// Ends a wait on the queue. Call it under the lock and while the queue is listed, when the id
    /// is certainly still ours.
    fn end(&self, reason: Error) {
        if self.ended.set(reason).is_ok() {
            let _ = self.queue.remove();
        }
    }

    /// Excludes the time in which this process was stopped (SIGSTOP), and perhaps the server with
    /// it.
    fn exclude(&self, pause: Duration, now: Duration) {
        let [pause, now] = [pause, now].map(|time| time.as_millis() as u64);
        let later = |since| (since > 0).then(|| now.min(since + pause).max(1));
        // This changes nothing if the wait is over by now.
        let _ = self.waiting_since.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// The process that sends the answer, as first seen. Its pid may later be another process's.
    fn child(&self, status: &QueueStatus) -> Option<&Seen> {
        let sender = status.last_sender.filter(|&pid| pid != getpid())?;
        Some(self.child.get_or_init(|| Seen::now(sender)))
    }

    /// Why it is useless to wait any longer.
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
        if status.messages > self.peer.own_messages {
            return None;
        }
        if self.has_answered.load(Ordering::Acquire) {
            let child = self.child(&status)?;
            return Observer::here().is_over(child).then(|| Cause::ChildDied.into());
        }
        let Peer { key, request_queue, owner, takes_lock, .. } = self.peer;
        let died = || takes_lock && server_lock::server_state(key, owner) == ServerState::Dead;
        (Queue::open(key) != Ok(request_queue) || died()).then(|| Cause::ServerDied.into())
    }
}
