//! Making a lease, and looking at the one at the head of a queue.

use nix::errno::Errno;

use super::identity::current_process;
use crate::sys::errno_of_ipc;
use crate::wire::{Cookie, Lease, Malformed};
use sysv_ipc::{MessageBuffer, Queue, QueueId, ReceiveError};

/// A lease in the name of this process, with a fresh cookie, for a request that is sent there.
///
/// # Errors
/// The kernel has no random bytes to give.
pub fn new(request_queue: QueueId) -> Result<Lease, getrandom::Error> {
    let mut cookie = [0; 16];
    getrandom::fill(&mut cookie)?;
    Ok(Lease { owner: current_process(), cookie: Cookie::new(cookie), request_queue })
}

/// What stands at the head of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A lease.
    Lease(Lease),
    /// A lease of a version that this build does not know.
    UnknownLease(u16),
    /// Some other message.
    Other,
    /// Nothing: the queue is empty.
    Nothing,
    /// The queue does not exist.
    Gone,
    /// The caller may not read the queue, or the kernel has no `MSG_COPY`.
    Unreadable(Errno),
}

/// Looks at the head of a queue and leaves it there (`MSG_COPY`).
pub fn peek(queue: Queue) -> Head {
    // Longer messages than version 1's lease are not needed whole to be told from one.
    let mut message = MessageBuffer::with_capacity(2 * Lease::SIZE);
    match queue.peek(&mut message, 0) {
        Ok(()) => match Lease::decode(message.mtype(), message.text()) {
            Ok(lease) => Head::Lease(lease),
            Err(Malformed::Version(version)) => Head::UnknownLease(version),
            Err(_) => Head::Other,
        },
        Err(ReceiveError::Empty) => Head::Nothing,
        Err(ReceiveError::Gone) => Head::Gone,
        Err(ReceiveError::Os(error)) => Head::Unreadable(errno_of_ipc(error)),
        Err(_) => Head::Other,
    }
}
