//! The request to stop, which a server shares with signal handlers and other threads.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU32};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, Signal};
use sysv_ipc::{Key, ProcessMark, Queue, QueueId};

use super::{geteuid, signals};

/// How often somebody asked the server to stop, and what a stop removes and wakes.
#[derive(Debug)]
pub(crate) struct StopRequest {
    key: Key,
    server: ProcessMark,
    times: AtomicU32,
    queue: AtomicI32,
    thread: OnceLock<Pthread>,
}

impl StopRequest {
    /// No queue has a negative id.
    const NO_QUEUE: i32 = -1;

    pub(crate) fn new(key: Key) -> Self {
        Self {
            key,
            server: ProcessMark::current(),
            times: AtomicU32::new(0),
            queue: AtomicI32::new(Self::NO_QUEUE),
            thread: OnceLock::new(),
        }
    }

    /// Asks the server to stop: removes its queue, and wakes its thread from a wait for children.
    pub(crate) fn stop(&self) {
        self.times.fetch_add(1, SeqCst);
        self.remove_queue();
        if let Some(&thread) = self.thread.get() {
            let _ = pthread_kill(thread, Signal::SIGCHLD);
        }
    }

    /// Lets these signals stop the server, and unblocks them in this thread. They are handled in a
    /// signal handler, because a thread that waits for them would make each fork slower.
    pub(crate) fn stop_on(
        self: &Arc<Self>,
        signals: impl IntoIterator<Item = i32>,
    ) -> Result<(), Errno> {
        static SERVER: OnceLock<Arc<StopRequest>> = OnceLock::new();
        extern "C" fn stop(_: libc::c_int) {
            let errno = Errno::last();
            if let Some(request) = SERVER.get() {
                request.stop();
            }
            errno.set();
        }
        SERVER.get_or_init(|| Arc::clone(self));
        for signal in signals {
            // SAFETY: the handler uses atomics, msgctl and pthread_kill, which take no lock and no
            // memory, and it preserves errno: signal-safety(7).
            unsafe { signals::on(signal.try_into()?, SaFlags::SA_RESTART, stop) }?;
        }
        Ok(())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.times.load(SeqCst) > 0
    }

    /// Whether somebody asked more than once. Then children must not finish their work.
    pub(crate) fn is_urgent(&self) -> bool {
        self.times.load(SeqCst) > 1
    }

    pub(crate) fn will_wake_this_thread(&self) {
        self.thread.get_or_init(pthread_self);
    }

    /// Makes this the queue that a stop removes. After a stop, removes it at once.
    pub(crate) fn set_queue(&self, queue: Queue) {
        self.queue.store(queue.id().get(), SeqCst);
        if self.is_stopping() {
            self.remove_queue();
        }
    }

    /// Removes the queue, but only once, because its id may then be given to another queue.
    pub(crate) fn remove_queue(&self) {
        let id = self.queue.swap(Self::NO_QUEUE, SeqCst);
        let queue = Queue::from_id(QueueId::new(id));
        if id != Self::NO_QUEUE && self.server.is_current() && self.is_ours(queue) {
            let _ = queue.remove();
        }
    }

    /// Whether the queue exists and is the one that we made, not a later one with its id.
    pub(crate) fn is_ours(&self, queue: Queue) -> bool {
        queue.status().is_ok_and(|status| {
            status.permissions.key == self.key && status.permissions.cuid == geteuid()
        })
    }
}
