//! Bytes ⇄ [`Request`], [`Reply`], [`Lease`]. No I/O, no policy.
//!
//! The plain protocol is that of TLPI section 46.8. Our extension begins after everything that a
//! plain peer reads. docs/protocol.md lists every offset. All integers are native-endian, since
//! both sides share one kernel. Decoding never panics: any bytes give a value or a [`Malformed`].

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

/// The default key of the request queue, that of TLPI's file server.
pub const DEFAULT_KEY: Key = Key::new(0x1aaa_aaa1);

/// Our mark on a queue, from the instant of its creation: the x bits, which the kernel ignores.
pub const MARK: Mode = Mode::new(0o111);

/// The mode of a reply queue: marked, and only owner and creator can read or write.
pub const REPLY_QUEUE_MODE: Mode = Mode::new(0o711);

/// The mode of a request queue that only its owner may write to. The w bits of group and others let
/// them send requests. They must never read, since requests contain cookies.
pub const REQUEST_QUEUE_MODE: Mode = Mode::new(0o600).with(MARK);

/// Whether a mode marks a queue as a server's. A queue that others may read, such as one of mode
/// 0777, is other software's.
pub const fn is_request_queue_mode(mode: Mode) -> bool {
    mode.without(Mode::new(0o022)).bits() == REQUEST_QUEUE_MODE.bits()
}

/// The longest path, in bytes without its NUL: `PATH_MAX` - 1.
pub const MAX_PATH: usize = 4095;

/// The most bytes of `mtext` in a valid request.
pub const MAX_REQUEST: usize = 8192;

/// The most bytes of `mtext` in a request that every plain server accepts: an id, and a path of 256
/// bytes. TLPI's server accepts 4,100, and exits when a request is larger (`E2BIG`).
pub const MAX_PLAIN_REQUEST: usize = 260;

/// The most bytes of `mtext` in a message to a plain client. Its buffer may be no larger.
pub const MAX_PLAIN_REPLY: usize = 4096;

/// The most bytes of `mtext` in a message to an extended client.
pub const MAX_REPLY: usize = 65_536;

/// The type of a normal request. The type is the priority: the server receives the lowest first.
pub const NORMAL_PRIORITY: MessageType = mtype(1);

/// The type of the lease at the head of a reply queue: "mqfs".
pub const LEASE_TYPE: MessageType = mtype(0x6d71_6673);

const fn mtype(value: libc::c_long) -> MessageType {
    match MessageType::new(value) {
        Some(mtype) => mtype,
        None => panic!("a message type is greater than zero"),
    }
}

/// Why bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// There are fewer bytes than the message's fixed fields take.
    #[error("too short")]
    TooShort,
    /// There are more bytes than in any valid message.
    #[error("too long")]
    TooLong,
    /// The id of the reply queue is negative. No queue has such an id.
    #[error("a reply queue id below zero")]
    QueueId,
    /// The first `PATH_MAX` bytes of the path contain no NUL.
    #[error("a path without its NUL")]
    UnterminatedPath,
    /// The bytes do not begin with the expected magic.
    #[error("no magic")]
    Magic,
    /// This build does not know the version.
    #[error("unknown version {0}")]
    Version(u16),
    /// The protocol has no such message type.
    #[error("unknown message type {0}")]
    Type(libc::c_long),
    /// A field has an invalid value.
    #[error("a field out of range")]
    Field,
}
