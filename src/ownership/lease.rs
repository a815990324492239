//! Making a lease, and reading the one at the head of a queue.

use std::cell::RefCell;

use nix::errno::Errno;

use super::identity::current_process;
use crate::sys::errno_of_ipc;
use crate::wire::{Cookie, Lease, Malformed};
use sysv_ipc::{MessageBuffer, Queue, QueueId, ReceiveError};

/// A lease that names this process, with a new cookie, for a request to this request queue. Fails
/// if the kernel has no random bytes.
pub fn new(request_queue: QueueId) -> Result<Lease, getrandom::Error> {
    let mut cookie = [0; 16];
    getrandom::fill(&mut cookie)?;
    Ok(Lease { owner: current_process(), cookie: Cookie::new(cookie), request_queue })
}

/// What is at the head of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Lease(Lease),
    /// A lease of a version that this build does not know.
    UnknownLease(u16),
    /// Some other message.
    Other,
    /// The queue is empty.
    Nothing,
    /// The queue does not exist.
    Gone,
    /// The caller may not read the queue, or the kernel has no `MSG_COPY`.
    Unreadable(Errno),
}

/// Reads the message at the head of a queue and leaves it there (`MSG_COPY`).
pub fn peek(queue: Queue) -> Head {
    thread_local! {
        // Twice a lease, so that leases of later versions fit. Other messages need not fit. A call
        // of malloc for every request would cost the server two page faults.
        static ROOM: RefCell<MessageBuffer> =
            RefCell::new(MessageBuffer::with_capacity(2 * Lease::SIZE));
    }
    let look = |message: &mut MessageBuffer| match queue.peek(message, 0) {
        Ok(()) => match Lease::decode(message.mtype(), message.text()) {
            Ok(lease) => Head::Lease(lease),
            Err(Malformed::Version(version)) => Head::UnknownLease(version),
            Err(_) => Head::Other,
        },
        Err(ReceiveError::Empty) => Head::Nothing,
        Err(ReceiveError::Gone) => Head::Gone,
        Err(ReceiveError::Os(error)) => Head::Unreadable(errno_of_ipc(error)),
        Err(_) => Head::Other,
    };
    // A client that another thread-local holds may outlive this one.
    ROOM.try_with(|room| look(&mut room.borrow_mut()))
        .unwrap_or_else(|_| look(&mut MessageBuffer::with_capacity(2 * Lease::SIZE)))
}
