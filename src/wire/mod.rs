//! Bytes ⇄ [`Request`], [`Question`], [`Entry`], frames, [`Lease`]. No I/O, no policy.
//!
//! docs/protocol.md lists every offset. Decoding never panics: any bytes give a value or a
//! [`Malformed`]. A new field also changes docs/protocol.md, `tests/golden-wire.py` with
//! `fixtures/wire/`, `tests/it/wire.rs` and `tests/it/fuzz.rs`.

mod bytes;
mod entry;
mod frame;
mod lease;
mod question;
mod queue_mode;
mod reply;
mod request;
mod tally;

pub use bytes::Malformed;
pub use entry::{Entry, Kind, Stat};
pub use frame::{
    Extent, FrameHeader, FrameType, MAX_WINDOW, WindowPart, decode_farewell, encode_farewell,
};
pub use lease::{Cookie, LEASE_TYPE, Lease, OwnerId};
pub use question::{MAX_PATH, MAX_UNANSWERED, Operation, QUESTION_TYPE, Question, Range};
pub use queue_mode::{
    DEFAULT_KEY, MARK, REPLY_QUEUE_MODE, REQUEST_QUEUE_MODE, WINDOW_MODE, is_request_queue_mode,
};
pub use reply::{Failure, MAX_PLAIN_REPLY, MAX_REPLY, Trailer};
pub use request::{Extension, MAX_PLAIN_REQUEST, MAX_REQUEST, NORMAL_PRIORITY, Request};
pub use tally::Tally;
