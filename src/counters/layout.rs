//! The layout of the segment: see the table in the module's documentation.

use std::time::Duration;

use super::reason::{FailureReason, RefusalReason};

pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"mqfsstat");
pub(super) const VERSION: u64 = 1;
pub(super) const SIZE: usize = 4096;

/// No queue has this id.
pub(super) const NO_QUEUE: u64 = u64::MAX;

/// The index of each word. Words that only the parent writes share no cache line with words that
/// children write.
pub(super) mod word {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const QUEUE: usize = 2;
    pub(crate) const SERVER: usize = 3;
    pub(crate) const STARTED: usize = 4;
    pub(crate) const CHILDREN_LIMIT: usize = 5;
    pub(crate) const REQUESTS: usize = 8;
    pub(crate) const CHILDREN: usize = 9;
    pub(crate) const CHILDREN_PEAK: usize = 10;
    pub(crate) const SESSIONS: usize = 11;
    pub(crate) const IDLE_SESSIONS: usize = 12;
    pub(crate) const HUNG_CHILDREN: usize = 13;
    pub(crate) const REFUSED: usize = 16;
    pub(crate) const FAILURES: usize = 40;
    pub(crate) const BYTES_SENT: usize = 56;
    pub(crate) const CLIENTS_GONE: usize = 57;
    pub(crate) const TRANSFER_NANOSECONDS: usize = 58;
    pub(crate) const QUESTIONS: usize = 59;
    pub(crate) const NO_WINDOW: usize = 60;
    pub(crate) const TRANSFERS: usize = 64;
    pub(crate) const END: usize = TRANSFERS + super::BOUNDS.len() + 1;
}

const _: () = assert!(word::REFUSED + RefusalReason::ALL.len() <= word::FAILURES);
const _: () = assert!(word::FAILURES + FailureReason::ALL.len() <= word::BYTES_SENT);
const _: () = assert!(word::END * size_of::<u64>() <= SIZE);

/// The upper bounds of the histogram of transfer durations, each included in its bucket. They are
/// the defaults of Prometheus' client libraries (5 ms to 10 s), continued in similar steps at both
/// ends.
pub const BOUNDS: [Duration; 20] = {
    let tens_of_microseconds = [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000,
    ];
    let mut bounds = [Duration::ZERO; 20];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = Duration::from_micros(10 * tens_of_microseconds[index]);
        index += 1;
    }
    bounds
};
