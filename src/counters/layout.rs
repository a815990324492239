//! The layout of the segment: see the table in the module's documentation.

use std::time::Duration;

use super::reason::{FailureReason, RefusalReason};
use crate::wire::MARK;
use sysv_ipc::Mode;

pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"mqfsstat");
pub(super) const VERSION: u64 = 1;
pub(super) const SIZE: usize = 4096;

/// Every user may read and the owner may write. The mark tells mqfs's segments from others.
pub(crate) const MODE: Mode = Mode::new(0o644).with(MARK);

/// No queue has this id.
pub(super) const NO_QUEUE: u64 = u64::MAX;

/// The index of each word. Words that only the parent writes share no cache line with words that
/// children write.
pub(super) mod word {
    pub(in crate::counters) const MAGIC: usize = 0;
    pub(in crate::counters) const VERSION: usize = 1;
    pub(in crate::counters) const QUEUE: usize = 2;
    pub(in crate::counters) const SERVER: usize = 3;
    pub(in crate::counters) const STARTED: usize = 4;
    pub(in crate::counters) const CHILDREN_LIMIT: usize = 5;
    pub(in crate::counters) const REQUESTS: usize = 8;
    pub(in crate::counters) const CHILDREN: usize = 9;
    pub(in crate::counters) const CHILDREN_PEAK: usize = 10;
    pub(in crate::counters) const REFUSED: usize = 16;
    pub(in crate::counters) const FAILURES: usize = 40;
    pub(in crate::counters) const BYTES_SENT: usize = 56;
    pub(in crate::counters) const CLIENTS_GONE: usize = 57;
    pub(in crate::counters) const TRANSFER_NANOSECONDS: usize = 58;
    pub(in crate::counters) const TRANSFERS: usize = 64;
    pub(in crate::counters) const END: usize = TRANSFERS + super::BOUNDS.len() + 1;
}

const _: () = assert!(word::REFUSED + RefusalReason::ALL.len() <= word::FAILURES);
const _: () = assert!(word::FAILURES + FailureReason::ALL.len() <= word::BYTES_SENT);
const _: () = assert!(word::END * size_of::<u64>() <= SIZE);

/// The upper bounds of the histogram of transfer durations, each included in its bucket. They are
/// the defaults of Prometheus' client libraries (5 ms to 10 s), continued in similar steps at both
/// ends.
pub const BOUNDS: [Duration; 20] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(25),
    Duration::from_secs(50),
    Duration::from_secs(100),
    Duration::from_secs(250),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_the_histogram_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
