//! Bytes ⇄ [`Request`], [`Reply`], [`Lease`]. No I/O, no policy.
//!
//! The plain protocol is that of TLPI section 46.8. Our extension begins after everything that a
//! plain peer reads. docs/protocol.md lists every offset. All integers are native-endian, since
//! both sides share one kernel. Decoding never panics: any bytes give a value or a [`Malformed`].

mod bytes;
mod entry;
mod lease;
mod malformed;
mod message_type;
mod queue_mode;
mod reply;
mod request;
mod size;
mod start;

pub use entry::{Entry, Packed};
pub use lease::{Cookie, Lease, OwnerId};
pub use malformed::Malformed;
pub use message_type::{LEASE_TYPE, NORMAL_PRIORITY};
pub use queue_mode::{
    DEFAULT_KEY, MARK, REPLY_QUEUE_MODE, REQUEST_QUEUE_MODE, is_request_queue_mode,
};
pub use reply::{Failure, Kind, Meta, Reply, Trailer};
pub use request::{Arrived, Extension, Operation, Range, Request};
pub use size::{MAX_PATH, MAX_PLAIN_REPLY, MAX_PLAIN_REQUEST, MAX_REPLY, MAX_REQUEST};
pub use start::{MAX_START, Start};
