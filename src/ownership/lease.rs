//! Making a lease, and reading the one at the head of a queue.

use std::cell::Cell;

use nix::errno::Errno;

use super::procfs::{self, Stat};
use crate::sys::{errno_of_ipc, getpid};
use crate::wire::{Cookie, Lease, Malformed, OwnerId};
use sysv_ipc::{MessageBuffer, ProcessMark, Queue, QueueId, ReceiveError};

/// A lease that names this process, with a new cookie, for a request to this request queue. Fails
/// if the kernel has no random bytes.
pub fn new(request_queue: QueueId) -> Result<Lease, getrandom::Error> {
    let mut cookie = [0; 16];
    getrandom::fill(&mut cookie)?;
    Ok(Lease { owner: current_process(), cookie: Cookie::new(cookie), request_queue })
}

/// The identity of this process. Reading /proc takes longer than sending a request, so each thread
/// keeps the result. A forked child inherits it, but has another mark, so it reads /proc anew.
fn current_process() -> OwnerId {
    thread_local! {
        static KNOWN: Cell<Option<(ProcessMark, OwnerId)>> = const { Cell::new(None) };
    }
    let here = ProcessMark::current();
    match KNOWN.get() {
        Some((mark, owner)) if mark == here => owner,
        _ => {
            let owner = read_identity();
            if owner.start_time > 0 && owner.pid_namespace > 0 {
                KNOWN.set(Some((here, owner)));
            }
            owner
        }
    }
}

fn read_identity() -> OwnerId {
    OwnerId {
        pid: getpid().as_raw(),
        start_time: Stat::read("self").map_or(0, |stat| stat.start_time),
        pid_namespace: procfs::own_pid_namespace(),
        time_namespace: procfs::namespace("self", "time").unwrap_or(0),
    }
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
    // Twice a lease, so that leases of later versions fit. Other messages need not fit.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    #[test]
    fn a_forked_child_has_an_identity_of_its_own() {
        assert_eq!(current_process(), read_identity());
        let child = fork_child(|| exit_now(i32::from(current_process() != read_identity())));
        assert_eq!(exit_status(child.unwrap()), Some(0));
    }
}
