//! A server's counters, in shared memory: the server and its children add to them without a lock,
//! and every user can read them.
//!
//! The counters are in a segment under the server's key, which outlives a server that is killed. So
//! the segment names the server's request queue: counters that name another queue, or have no
//! running server, are a dead server's.
//!
//! Children write to the segment with the rights of their callers, and a caller may have taken its
//! child over. So the server never reads the segment. A child reads two words: to log only the
//! first window that could not be made, and to learn whether it should yield to its client.
//!
//! A new counter also changes `src/cli/stat/state.rs` and docs/operations.md, and a new reason
//! docs/security.md.
//!
//! # Layout
//!
//! The segment has 4,096 bytes: words of eight bytes, native-endian and unsigned. A reader ignores
//! words that it does not know. A new word does not change the version; any other change does.
//!
//! | words | content |
//! | --- | --- |
//! | 0 | the bytes `mqfsstat`; written last |
//! | 1 | version: 1 |
//! | 2 | id of the request queue; all ones while there is none |
//! | 3 | pid of the server, in its own pid namespace |
//! | 4 | start of the server, in seconds since 1970 |
//! | 5 to 13, 56 to 60 | one number each: the fields of [`Snapshot`] name their words |
//! | 16 to 39 | requests refused, one word for each [`RefusalReason`] in its order |
//! | 40 to 55 | questions failed, one word for each [`FailureReason`] in its order |
//! | 58 | nanoseconds that all complete answers took together |
//! | 61 | how many more children do not yield to their clients once they have answered |
//! | 64 to 84 | complete answers by duration, a histogram |
//!
//! Each word of the histogram counts the answers that took at most one of [`BOUNDS`], but longer
//! than the one before. The last word counts those that took longer than every bound.

mod layout;
mod reason;
mod snapshot;
#[cfg(any(feature = "server", test))]
mod writer;

pub use layout::BOUNDS;
pub(crate) use layout::MODE;
pub use reason::{FailureReason, RefusalReason};
pub use snapshot::{Lookup, Snapshot, read};
#[cfg(feature = "server")]
pub(crate) use writer::Writer;
