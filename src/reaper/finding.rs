use std::time::SystemTime;

use sysv_ipc::{Pid, Queue, QueueStatus};

use super::verdict::Verdict;
use crate::sys::geteuid;
use crate::wire::{Lease, REPLY_QUEUE_MODE, is_request_queue_mode};

/// One queue, its state, and the verdict on it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finding {
    /// The queue.
    pub queue: Queue,
    /// Its state when it was judged.
    pub status: QueueStatus,
    /// Whether it is an orphan, and why.
    pub verdict: Verdict,
    /// The lease at its head. Private, because it holds the owner's cookie.
    pub(super) lease: Option<Lease>,
}

impl Finding {
    /// The process in a reply queue's lease, by its pid in its own pid namespace, or the last
    /// receiver of a request queue.
    pub fn owner(&self) -> Option<Pid> {
        match self.lease {
            Some(lease) => Some(Pid::from_raw(lease.owner.pid)),
            None => self.status.last_receiver.filter(|_| is_request_queue(&self.status)),
        }
    }

    /// Whether the caller is the queue's owner, its creator or root.
    pub fn is_removable(&self) -> bool {
        let (caller, permissions) = (geteuid(), self.status.permissions);
        caller.is_root() || [permissions.uid, permissions.cuid].contains(&caller)
    }

    /// When the queue was last made, changed, sent to or received from, in whole seconds.
    pub fn last_used(&self) -> SystemTime {
        last_used(&self.status)
    }
}

pub(super) fn last_used(status: &QueueStatus) -> SystemTime {
    let times = [status.sent_at, status.received_at];
    times.into_iter().flatten().fold(status.changed_at, SystemTime::max)
}

/// Whether nobody ever sent to the queue or received from it. A process of a foreign pid namespace
/// reads as no pid, so the times count too.
pub(super) fn was_never_used(status: &QueueStatus) -> bool {
    status.messages == 0
        && (status.last_sender, status.last_receiver) == (None, None)
        && (status.sent_at, status.received_at) == (None, None)
}

pub(crate) fn is_reply_queue(status: &QueueStatus) -> bool {
    status.permissions.key.is_private() && status.permissions.mode == REPLY_QUEUE_MODE
}

pub(crate) fn is_request_queue(status: &QueueStatus) -> bool {
    !status.permissions.key.is_private() && is_request_queue_mode(status.permissions.mode)
}
