//! Makes the request queue, makes it again if it is lost, and removes it when the server stops.

use std::ops::Deref;
use std::sync::Arc;

use nix::errno::Errno;
use sysv_ipc::{Key, Queue};

use super::{Attempt, removed, take_over, unless_gone};
use crate::counters::RefusalReason;
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness;
use crate::ownership::server_state::untrusted_user;
use crate::server::config::Config;
use crate::server::error::Error;
use crate::sys::{StopRequest, geteuid};
use crate::wire::{MARK, is_request_queue_mode};

/// The request queue of a server that holds the server lock. Dropping it removes the queue.
pub(crate) struct RequestQueue {
    queue: Queue,
    stop: Arc<StopRequest>,
}

impl RequestQueue {
    pub(crate) fn create(config: &Config, stop: Arc<StopRequest>) -> Result<Self, Error> {
        let queue = replace_predecessor(config)?;
        stop.set_queue(queue);
        if lease::peek(queue) == Head::Unreadable(Errno::ENOSYS) {
            tracing::warn!("{}", RefusalReason::NoPeek);
        }
        Ok(Self { queue, stop })
    }

    /// Makes the queue again after somebody removed it. The server must hold its lock.
    pub(crate) fn recreate(&mut self, config: &Config) -> Result<(), Error> {
        self.queue = replace_predecessor(config)?;
        self.stop.set_queue(self.queue);
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

fn replace_predecessor(config: &Config) -> Result<Queue, Error> {
    let key = config.key;
    take_over("queue", key, || match Queue::create(key, config.mode.with(MARK)) {
        Ok(queue) => Ok(Attempt::Done(queue)),
        Err(error) if error.already_exists() => remove_predecessor(key, config.claim_key),
        Err(error) if error.is_out_of_space() => Err(Error::NoQueueLeft(error)),
        Err(error) => Err(error.into()),
    })
}

/// Removes the queue under the key. We hold the server lock, so a marked queue is a dead server's,
/// or that of a server whose lock root has taken. An unmarked queue is another program's, and stays
/// unless its last receiver is dead, or root claims the key from other users.
fn remove_predecessor(key: Key, claim: bool) -> Result<Attempt<Queue>, Error> {
    let found = Queue::open(key).and_then(|queue| Ok((queue, queue.status()?)));
    let Some((queue, status)) = unless_gone(found)? else { return Ok(Attempt::Retry) };
    let permissions = &status.permissions;
    let user = status.last_receiver.filter(|&pid| !liveness::no_such_process(pid));
    let in_use = |why| Error::ForeignQueue { key, queue: queue.id(), uid: permissions.uid, why };
    let is_claimed = claim && untrusted_user(permissions, geteuid()).is_some();
    if !is_request_queue_mode(permissions.mode) && !is_claimed {
        if let Some(pid) = user {
            return Err(in_use(format!("pid {pid} received from it")));
        } else if status.last_receiver.is_none() {
            return Err(in_use("nothing says who receives from it".to_owned()));
        }
    }
    match removed(queue.remove(), permissions, user) {
        Err(error) if error.is_denied() => {
            Err(in_use("only its owner and root may remove it".to_owned()))
        }
        attempt => Ok(attempt?),
    }
}
