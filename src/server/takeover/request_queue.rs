//! Makes the request queue, makes it again if it is lost, and removes it when the server stops.

use std::ops::Deref;
use std::sync::Arc;

use nix::errno::Errno;
use sysv_ipc::{Key, Mode, Queue};

use super::{Attempt, removed, take_over, unless_gone};
use crate::counters::RefusalReason;
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness;
use crate::server::error::Error;
use crate::sys::StopRequest;
use crate::wire::{MARK, is_request_queue_mode};

/// The request queue of a server that holds the server lock. Dropping it removes the queue.
#[derive(Debug)]
pub(crate) struct RequestQueue {
    queue: Queue,
    key: Key,
    mode: Mode,
    stop: Arc<StopRequest>,
}

impl RequestQueue {
    pub(crate) fn create(key: Key, mode: Mode, stop: Arc<StopRequest>) -> Result<Self, Error> {
        let mode = mode.with(MARK);
        let queue = replace_predecessor(key, mode)?;
        stop.will_remove(queue);
        if lease::peek(queue) == Head::Unreadable(Errno::ENOSYS) {
            tracing::warn!("{}", RefusalReason::NoPeek);
        }
        Ok(Self { queue, key, mode, stop })
    }

    /// Makes the queue again after somebody removed it. The server must hold its lock.
    pub(crate) fn recreate(&mut self) -> Result<(), Error> {
        self.queue = replace_predecessor(self.key, self.mode)?;
        self.stop.will_remove(self.queue);
        Ok(())
    }

    /// Whether the queue exists and its id has not been given to another queue.
    pub(crate) fn exists(&self) -> bool {
        self.stop.is_ours(self.queue)
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
        self.stop.remove_queue();
    }
}

fn replace_predecessor(key: Key, mode: Mode) -> Result<Queue, Error> {
    let (queue, removed) = take_over(|| match Queue::create(key, mode) {
        Ok(queue) => Ok(Attempt::Done(queue)),
        Err(error) if error.already_exists() => remove_predecessor(key),
        Err(error) if error.is_out_of_space() => Err(Error::NoQueueLeft(error)),
        Err(error) => Err(error.into()),
    })?;
    if removed > 0 {
        tracing::info!(%key, removed, "removed what dead servers left under the key");
    }
    Ok(queue)
}

/// Removes the queue under the key. We hold the server lock, so a marked queue is a dead server's.
/// An unmarked queue is another program's, and stays unless its last receiver is dead.
fn remove_predecessor(key: Key) -> Result<Attempt<Queue>, Error> {
    let found = Queue::open(key).and_then(|queue| Ok((queue, queue.status()?)));
    let Some((queue, status)) = unless_gone(found)? else { return Ok(Attempt::Retry) };
    let in_use = |why| Error::ForeignQueue { key, queue: queue.id(), why };
    if !is_request_queue_mode(status.permissions.mode) {
        let Some(pid) = status.last_receiver else {
            return Err(in_use("nothing says who receives from it".to_owned()));
        };
        if !liveness::no_such_process(pid) {
            return Err(in_use(format!("pid {pid} received from it")));
        }
    }
    match removed(queue.remove()) {
        Err(error) if error.is_denied() => {
            Err(in_use(format!("it belongs to uid {}", status.permissions.uid)))
        }
        attempt => Ok(attempt?),
    }
}
