//! More room in reply queues, where the server may give it: a deeper queue has both ends sleep less.

use crate::sys::geteuid;
use nix::errno::Errno;
use sysv_ipc::Uid;

use crate::server::admission::reply_to::{Dialect, ReplyTo};
use crate::sys::errno_of_ipc;
use sysv_ipc::{Queue, QueueSettings};

/// The reply queues that were given more room, as far as they may still be there.
#[derive(Debug)]
pub(crate) struct QueueCapacity {
    given: Vec<(Uid, Queue)>,
    /// How many there may be, and how many of one user. What is in a queue is the kernel's memory,
    /// also after its child has given up.
    bound: usize,
    bound_per_user: usize,
    /// Whether the kernel lets us: `CAP_SYS_RESOURCE`, msgctl(2).
    may: bool,
}

impl QueueCapacity {
    /// What a queue is to hold, in bytes. Four times as much makes next to no difference any more.
    const BYTES: u64 = 64 << 10;

    pub(crate) fn new(bound: usize, bound_per_user: usize) -> Self {
        Self { given: Vec::new(), bound, bound_per_user, may: true }
    }

    /// Gives the queue more room, if it is proven to be this user's.
    pub(crate) fn give(&mut self, user: Uid, reply: &mut ReplyTo) {
        let Dialect::Extended(Some(_)) = reply.dialect else { return };
        if !self.may || reply.max_bytes >= Self::BYTES || !self.is_left_for(user) {
            return;
        }
        match deepen(reply.queue) {
            Ok(()) => {
                reply.max_bytes = Self::BYTES;
                self.given.push((user, reply.queue));
            }
            // Unless the client took the queue back meanwhile.
            Err(Errno::EPERM) => self.may = !is_ours(reply.queue),
            Err(_) => {}
        }
    }

    fn is_left_for(&mut self, user: Uid) -> bool {
        let used_up = |given: &[(Uid, Queue)]| {
            let users = given.iter().filter(|(uid, _)| *uid == user).count();
            given.len() >= self.bound || users >= self.bound_per_user
        };
        if used_up(&self.given) {
            self.given.retain(|&(user, queue)| is_deep(queue, user));
        }
        !used_up(&self.given)
    }
}

fn deepen(queue: Queue) -> Result<(), Errno> {
    let settings = queue.status().map_err(errno_of_ipc)?.settings();
    queue.set(&QueueSettings { max_bytes: QueueCapacity::BYTES, ..settings }).map_err(errno_of_ipc)
}

fn is_ours(queue: Queue) -> bool {
    geteuid().is_root() || queue.status().is_ok_and(|status| status.permissions.uid == geteuid())
}

/// Nobody but us made it so, whatever has become of its lease.
fn is_deep(queue: Queue, user: Uid) -> bool {
    queue.status().is_ok_and(|status| {
        status.permissions.cuid == user && status.max_bytes >= QueueCapacity::BYTES
    })
}
