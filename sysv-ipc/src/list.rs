//! Every queue of the IPC namespace, one after the other.

use super::{Error, Queue, QueueId, QueueStatus, syscalls};

/// Every queue of this IPC namespace with its status, whoever may read it (`MSG_STAT_ANY`).
///
/// Queues that appear or vanish meanwhile are seen or not; no queue is seen twice.
///
/// # Errors
/// None are known; the calls need no permission (Linux 4.17 or newer).
///
/// ```
/// use sysv_ipc::{Mode, OwnedQueue, queues};
///
/// let mine = OwnedQueue::private(Mode::new(0o600))?;
/// assert!(queues()?.any(|(queue, status)| queue.id() == mine.id() && status.permissions.key.is_private()));
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
pub fn queues() -> Result<Queues, Error> {
    Queues::new(syscalls::MSG_STAT_ANY)
}

/// Every queue of this IPC namespace that the caller may read (`MSG_STAT`).
///
/// # Errors
/// None are known.
pub fn readable_queues() -> Result<Queues, Error> {
    Queues::new(libc::MSG_STAT)
}

/// An iterator over queues; see [`queues`].
#[derive(Debug)]
pub struct Queues {
    command: libc::c_int,
    next: libc::c_int,
    last: libc::c_int,
}

impl Queues {
    fn new(command: libc::c_int) -> Result<Self, Error> {
        // MSG_INFO returns the highest index in use, and 0 where none is.
        let (last, _) = syscalls::msgctl_info(libc::MSG_INFO)?;
        Ok(Self { command, next: 0, last })
    }
}

impl Iterator for Queues {
    type Item = (Queue, QueueStatus);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next <= self.last {
            let index = self.next;
            self.next += 1;
            // An index that is not in use, or whose queue is not for us to see, is passed over.
            if let Ok((id, raw)) = syscalls::msgctl_stat_index(index, self.command) {
                return Some((Queue::from_id(QueueId::new(id)), QueueStatus::from_raw(&raw)));
            }
        }
        None
    }
}
