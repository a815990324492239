//! Message types other than those of replies.

use sysv_ipc::MessageType;

/// The type of a normal request. The type is the priority: the server receives the lowest first.
pub const NORMAL_PRIORITY: MessageType = mtype(1);

/// The type of the lease at the head of a reply queue: "mqfs".
pub const LEASE_TYPE: MessageType = mtype(0x6d71_6673);

pub(super) const fn mtype(value: libc::c_long) -> MessageType {
    match MessageType::new(value) {
        Some(mtype) => mtype,
        None => panic!("a message type is greater than zero"),
    }
}
