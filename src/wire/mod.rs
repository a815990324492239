//! Bytes ⇄ [`Request`], [`Reply`], [`Lease`]. No I/O, no policy.
//!
//! The plain protocol is that of TLPI section 46.8; the extension is ours and stands behind whatever
//! a plain peer reads. docs/protocol.md has every offset. All integers are native-endian: both
//! ends share one kernel. Decoding is total: any bytes give a value or a [`Malformed`].

mod bytes;
mod entry;
mod lease;
mod reply;
mod request;
mod start;

pub use entry::{Entry, Packed};
pub use lease::{Cookie, Lease, OwnerId};
pub use reply::{Failure, Kind, Meta, Reply, Trailer};
pub use request::{Arrived, Extension, Operation, Range, Request};
pub use start::{MAX_START, Start};

use sysv_ipc::{Key, MessageType, Mode};

/// The key of the request queue unless told otherwise, that of TLPI's file server.
pub const DEFAULT_KEY: Key = Key::new(0x1aaa_aaa1);

/// The x bits, which mean nothing to the kernel: our mark on a queue, from its first instant.
pub const MARK: Mode = Mode::new(0o111);

/// The mode of a reply queue: marked, and nobody but owner and creator can read or write.
pub const REPLY_QUEUE_MODE: Mode = Mode::new(0o711);

/// The mode of a request queue that only its owner may write to. With the w bits of group and others
/// it lets them ask; never may they read, since requests hold cookies.
pub const REQUEST_QUEUE_MODE: Mode = Mode::new(0o600).with(MARK);

/// Whether a queue with this mode is marked as a server's. A queue that everybody may read, such as
/// one of mode 0777, is other software's.
pub const fn is_request_queue_mode(mode: Mode) -> bool {
    mode.without(Mode::new(0o022)).bits() == REQUEST_QUEUE_MODE.bits()
}

/// The longest path, in bytes without its NUL: `PATH_MAX` - 1.
pub const MAX_PATH: usize = 4095;

/// The most bytes of `mtext` in a request that is in order.
pub const MAX_REQUEST: usize = 8192;

/// The most bytes of `mtext` in a request that every plain server takes: an id and a path of 256 bytes.
/// TLPI's own takes 4,100, and ends at one that is larger (`E2BIG`).
pub const MAX_PLAIN_REQUEST: usize = 260;

/// The most bytes of `mtext` in a message to a plain client, whose buffer may hold no more.
pub const MAX_PLAIN_REPLY: usize = 4096;

/// The most bytes of `mtext` in a message to an extended client.
pub const MAX_REPLY: usize = 65_536;

/// The type of a normal request. It is the request's priority: the server takes the lowest first.
pub const NORMAL_PRIORITY: MessageType = mtype(1);

/// The type of the lease at the head of a reply queue: "mqfs".
pub const LEASE_TYPE: MessageType = mtype(0x6d71_6673);

const fn mtype(value: libc::c_long) -> MessageType {
    match MessageType::new(value) {
        Some(mtype) => mtype,
        None => panic!("a message type is greater than zero"),
    }
}

/// Bytes that are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Fewer bytes than the message's fixed fields take.
    #[error("too short")]
    TooShort,
    /// More bytes than any message that is in order.
    #[error("too long")]
    TooLong,
    /// The id of the reply queue is negative, which no id is.
    #[error("a reply queue id below zero")]
    QueueId,
    /// No NUL within the first `PATH_MAX` bytes of the path.
    #[error("a path without its NUL")]
    UnterminatedPath,
    /// The bytes do not begin with the magic that belongs there.
    #[error("no magic")]
    Magic,
    /// A version that this build does not know.
    #[error("unknown version {0}")]
    Version(u16),
    /// A message type that the protocol does not have.
    #[error("unknown message type {0}")]
    Type(libc::c_long),
    /// A field with a value that it cannot have.
    #[error("a field out of range")]
    Field,
}
