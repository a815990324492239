//! A server's figures: counters in shared memory, which the server and its children add to without a
//! lock and anybody may read.
//!
//! They stand in a segment under the server's key. A segment outlives its makers, and so does a
//! message queue that nobody removes; so the segment names the request queue that it belongs to, and
//! the server lock tells whether anybody serves it. A reader that finds another queue, or no server,
//! knows that it is looking at a dead server's figures.
//!
//! Children write here as their callers. Nothing that a server does may depend on what stands here:
//! it writes and never reads.
//!
//! ```no_run
//! use mqfs::counters::{Lookup, read};
//!
//! if let Lookup::Found(counters) = read(mqfs::DEFAULT_KEY, None)? {
//!     println!("{} requests, {} failed", counters.requests, counters.all_failures());
//! }
//! # Ok::<(), sysv_ipc::Error>(())
//! ```
//!
//! # Layout
//!
//! 4,096 bytes, in words of eight bytes, native-endian and unsigned. A reader ignores words that it
//! does not know; a change that is more than a new one comes with a new version.
//!
//! | words | content |
//! | --- | --- |
//! | 0 | the bytes `mqfsstat`, once the rest is there |
//! | 1 | version, 1 |
//! | 2 | id of the request queue; all ones until there is one |
//! | 3 | pid of the server, in its own pid namespace |
//! | 4 | when it started, in seconds since 1970 |
//! | 5 | the most children that there may be |
//! | 8 | requests received |
//! | 9, 10 | children that answer requests, now and at most |
//! | 16 to 39 | requests refused, by [`RefusalReason`] in its order |
//! | 40 to 55 | requests that failed, by [`FailureReason`] in its order |
//! | 56 | bytes of files sent |
//! | 57 | clients that left before they had everything |
//! | 58 | nanoseconds that complete transfers took together |
//! | 64 to 84 | complete transfers by how long they took: for each of [`BOUNDS`] those that took at most that and more than the one before; last, all longer ones |

mod layout;
mod prometheus;
mod reason;
mod snapshot;
mod writer;

pub use layout::BOUNDS;
#[cfg(feature = "server")]
pub(crate) use layout::MODE;
pub use prometheus::Metrics;
pub use reason::{FailureReason, RefusalReason};
pub use snapshot::{Lookup, Snapshot, read};
#[doc(hidden)] // for the server
pub use writer::Writer;
