//! Raises the capacity of reply queues, if the server may: in a larger queue, both ends sleep less.

use nix::errno::Errno;
use sysv_ipc::{Queue, QueueSettings, Uid};

use crate::server::admission::{Dialect, ReplyTo};
use crate::sys::{errno_of_ipc, geteuid};

/// The reply queues whose capacity the server raised, and which may still exist.
#[derive(Debug)]
pub(crate) struct QueueCapacity {
    raised: Vec<(Uid, Queue)>,
    /// How many queues to raise in all, and how many of one user: the messages in a queue use the
    /// kernel's memory, even after the child has given up.
    limit: usize,
    limit_per_user: usize,
    /// Whether this server may raise capacities: `CAP_SYS_RESOURCE`, msgctl(2).
    may_raise: bool,
}

impl QueueCapacity {
    /// The capacity of a raised queue, in bytes. Four times as much makes almost no difference.
    const BYTES: u64 = 64 << 10;

    pub(crate) fn new(limit: usize, limit_per_user: usize) -> Self {
        Self { raised: Vec::new(), limit, limit_per_user, may_raise: true }
    }

    /// Raises the capacity of a queue that is proven to belong to this user.
    pub(crate) fn raise(&mut self, user: Uid, reply: &mut ReplyTo) {
        let Dialect::Extended(Some(_)) = reply.dialect else { return };
        if !self.may_raise || reply.max_bytes >= Self::BYTES || !self.is_below_limits(user) {
            return;
        }
        match raise(reply.queue) {
            Ok(()) => {
                reply.max_bytes = Self::BYTES;
                self.raised.push((user, reply.queue));
            }
            // Either the capability is missing, or the client took its queue back: no evidence.
            Err(Errno::EPERM) => self.may_raise = !is_ours(reply.queue),
            Err(_) => {}
        }
    }

    fn is_below_limits(&mut self, user: Uid) -> bool {
        let is_below = |raised: &[(Uid, Queue)]| {
            let of_user = raised.iter().filter(|(uid, _)| *uid == user).count();
            raised.len() < self.limit && of_user < self.limit_per_user
        };
        if !is_below(&self.raised) {
            self.raised.retain(|&(user, queue)| is_raised(queue, user));
        }
        is_below(&self.raised)
    }
}

fn raise(queue: Queue) -> Result<(), Errno> {
    let settings = queue.status().map_err(errno_of_ipc)?.settings();
    queue.set(&QueueSettings { max_bytes: QueueCapacity::BYTES, ..settings }).map_err(errno_of_ipc)
}

fn is_ours(queue: Queue) -> bool {
    geteuid().is_root() || queue.status().is_ok_and(|status| status.permissions.uid == geteuid())
}

/// Whether the queue still exists. It need not look at the lease: only servers raise capacities
/// this far.
fn is_raised(queue: Queue, user: Uid) -> bool {
    queue.status().is_ok_and(|status| {
        status.permissions.cuid == user && status.max_bytes >= QueueCapacity::BYTES
    })
}
