//! The well-known queue: made by the start rules, made again if it is lost, removed at the stop.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::sys::{geteuid, getpid};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use sysv_ipc::Pid;

use crate::ownership::liveness;
use crate::server::Error;
use crate::wire::{MARK, is_request_queue_mode};
use sysv_ipc::{Key, Mode, Queue, QueueId};

/// The request queue of a server that holds the server lock. Removed when this goes.
#[derive(Debug)]
pub(crate) struct RequestQueue {
    queue: Queue,
    key: Key,
    mode: Mode,
    stopping: Arc<StopRequest>,
}

impl RequestQueue {
    pub(crate) fn create(key: Key, mode: Mode, stopping: Arc<StopRequest>) -> Result<Self, Error> {
        let mode = mode.with(MARK);
        let queue = create_by_rules(key, mode)?;
        stopping.watch(queue);
        Ok(Self { queue, key, mode, stopping })
    }

    /// Whether the id still means this queue: not once it was removed, and the id used again.
    pub(crate) fn is_ours(&self) -> bool {
        self.stopping.is_ours(self.queue)
    }

    /// Makes the queue again that somebody removed. Only for who still holds the server lock.
    pub(crate) fn recreate(&mut self) -> Result<(), Error> {
        self.queue = create_by_rules(self.key, self.mode)?;
        self.stopping.watch(self.queue);
        Ok(())
    }
}

impl Deref for RequestQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for RequestQueue {
    fn drop(&mut self) {
        self.stopping.remove_queue();
    }
}

/// A marked queue under the key is that of a dead predecessor, since we hold the server lock. An
/// unmarked one is another program's, and goes only if its last receiver is dead.
fn create_by_rules(key: Key, mode: Mode) -> Result<Queue, Error> {
    let mut removed = 0;
    loop {
        match Queue::create(key, mode) {
            Ok(queue) => {
                // Said once: whoever made them may make them again as fast as it goes.
                if removed > 0 {
                    tracing::info!(%key, removed, "removed what dead servers left under the key");
                }
                return Ok(queue);
            }
            Err(error) if error.already_exists() => {
                remove_predecessor(key)?;
                removed += 1;
            }
            Err(error) if error.is_out_of_space() => return Err(Error::NoQueueLeft(error)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove_predecessor(key: Key) -> Result<(), Error> {
    let found = Queue::open(key).and_then(|queue| Ok((queue, queue.status()?)));
    let (queue, status) = match found {
        Ok(found) => found,
        Err(error) if error.is_gone() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let in_use = |why| Error::KeyInUse { key, queue: queue.id(), why };
    if !is_request_queue_mode(status.permissions.mode) {
        match status.last_receiver {
            None => return Err(in_use("nothing says who receives from it".to_owned())),
            Some(pid) if !liveness::no_such_process(pid) => {
                return Err(in_use(format!("pid {pid} received from it")));
            }
            Some(_) => {}
        }
    }
    match queue.remove() {
        Ok(()) => Ok(()),
        Err(error) if error.is_gone() => Ok(()),
        Err(error) if error.is_denied() => {
            Err(in_use(format!("it belongs to uid {}", status.permissions.uid)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The wish that the server stop, shared with the threads that may have it.
#[derive(Debug)]
pub(crate) struct StopRequest {
    key: Key,
    maker: Pid,
    wishes: AtomicU32,
    queue: AtomicI32,
    thread: OnceLock<Pthread>,
}

impl StopRequest {
    /// No id is negative.
    const NO_QUEUE: i32 = -1;

    pub(crate) fn new(key: Key) -> Self {
        Self {
            key,
            maker: getpid(),
            wishes: AtomicU32::new(0),
            queue: AtomicI32::new(Self::NO_QUEUE),
            thread: OnceLock::new(),
        }
    }

    /// Says which queue a stop is to remove. If the stop came before, removes it at once.
    fn watch(&self, queue: Queue) {
        self.queue.store(queue.id().get(), Ordering::SeqCst);
        if self.is_stopping() {
            self.remove_queue();
        }
    }

    /// Removes the queue, which wakes the receive with `EIDRM`. Once and no more: the id may soon be
    /// somebody else's.
    pub(crate) fn remove_queue(&self) {
        let queue = self.queue.swap(Self::NO_QUEUE, Ordering::SeqCst);
        let queue = Queue::from_id(QueueId::new(queue));
        if queue.id().get() != Self::NO_QUEUE && getpid() == self.maker && self.is_ours(queue) {
            let _ = queue.remove();
        }
    }

    fn is_ours(&self, queue: Queue) -> bool {
        queue.status().is_ok_and(|status| {
            status.permissions.key == self.key && status.permissions.cuid == geteuid()
        })
    }

    /// Says which thread waits, for a queue or for children.
    pub(crate) fn runs_here(&self) {
        self.thread.get_or_init(pthread_self);
    }

    pub(crate) fn stop(&self) {
        self.wishes.fetch_add(1, Ordering::SeqCst);
        self.remove_queue();
        if let Some(&thread) = self.thread.get() {
            // Wakes a wait for children.
            let _ = pthread_kill(thread, Signal::SIGCHLD);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.wishes.load(Ordering::SeqCst) > 0
    }

    /// Whether the stop was asked for more than once.
    pub(crate) fn is_urgent(&self) -> bool {
        self.wishes.load(Ordering::SeqCst) > 1
    }
}
