//! Makes the request queue, makes it again if it is lost, and removes it when the server stops.

use std::ops::Deref;
use std::sync::Arc;

use nix::errno::Errno;
use sysv_ipc::{Key, Mode, Permissions, Pid, Queue, QueueStatus};

use super::{Attempt, removed, take_over, unless_gone};
use crate::counters::RefusalReason;
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::{self, Observer};
use crate::ownership::server_state::untrusted_user;
use crate::server::config::Config;
use crate::server::error::Error;
use crate::sys::{StopRequest, geteuid};
use crate::wire::{MARK, is_request_queue_mode};

/// The request queue of a server that holds the server lock. Dropping it removes the queue.
#[derive(Debug)]
pub(crate) struct RequestQueue {
    queue: Queue,
    key: Key,
    mode: Mode,
    claim: bool,
    stop: Arc<StopRequest>,
}

impl RequestQueue {
    pub(crate) fn create(config: &Config, stop: Arc<StopRequest>) -> Result<Self, Error> {
        let (key, mode, claim) = (config.key, config.mode.with(MARK), config.claim_key);
        let queue = replace_predecessor(key, mode, claim)?;
        stop.will_remove(queue);
        if lease::peek(queue) == Head::Unreadable(Errno::ENOSYS) {
            tracing::warn!("{}", RefusalReason::NoPeek);
        }
        Ok(Self { queue, key, mode, claim, stop })
    }

    /// Makes the queue again after somebody removed it. The server must hold its lock.
    pub(crate) fn recreate(&mut self) -> Result<(), Error> {
        self.queue = replace_predecessor(self.key, self.mode, self.claim)?;
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

fn replace_predecessor(key: Key, mode: Mode, claim: bool) -> Result<Queue, Error> {
    let mut displaced = None;
    let (queue, removed) = take_over(|| match Queue::create(key, mode) {
        Ok(queue) => Ok(Attempt::Done(queue)),
        Err(error) if error.already_exists() => remove_predecessor(key, claim, &mut displaced),
        Err(error) if error.is_out_of_space() => Err(Error::NoQueueLeft(error)),
        Err(error) => Err(error.into()),
    })?;
    match displaced {
        Some(QueueStatus {
            permissions: Permissions { cuid, mode, .. }, last_receiver, ..
        }) => {
            let (uid, mode, pid) = (cuid.as_raw(), mode, last_receiver.map(Pid::as_raw));
            tracing::warn!(%key, uid, pid, %mode, removed, "removed another user's queue");
        }
        None if removed > 0 => {
            tracing::info!(%key, removed, "removed what dead servers left under the key");
        }
        None => {}
    }
    Ok(queue)
}

/// Removes the queue under the key. We hold the server lock, so a marked queue is a dead server's,
/// or that of a server whose lock root has taken. An unmarked queue is another program's, and stays
/// unless its last receiver is dead, or root claims the key from other users.
///
/// `displaced`: another user's queue that was removed last.
fn remove_predecessor(
    key: Key,
    claim: bool,
    displaced: &mut Option<QueueStatus>,
) -> Result<Attempt<Queue>, Error> {
    let found = Queue::open(key).and_then(|queue| Ok((queue, queue.status()?)));
    let Some((queue, status)) = unless_gone(found)? else { return Ok(Attempt::Retry) };
    let user = status.last_receiver.filter(|&pid| !liveness::no_such_process(pid));
    let in_use = |why| {
        let (queue, uid) = (queue.id(), status.permissions.uid);
        let is_unused = user.is_none() && !Observer::here().may_be_waited_on(queue);
        Error::ForeignQueue { key, queue, uid, why, is_unused }
    };
    let is_anothers = untrusted_user(&status.permissions, geteuid()).is_some();
    let is_to_go = is_request_queue_mode(status.permissions.mode) || (claim && is_anothers);
    if !is_to_go {
        match (user, status.last_receiver) {
            (Some(pid), _) => return Err(in_use(format!("pid {pid} received from it"))),
            (None, None) => return Err(in_use("nothing says who receives from it".to_owned())),
            (None, Some(_)) => {} // it is dead
        }
    }
    match removed(queue.remove()) {
        Err(error) if error.is_denied() => {
            Err(in_use("only its owner and root may remove it".to_owned()))
        }
        attempt => {
            if is_anothers {
                *displaced = Some(status);
            }
            Ok(attempt?)
        }
    }
}
