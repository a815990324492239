//! The layout of the segment: see the table in the module's documentation.

use std::time::Duration;

use sysv_ipc::Mode;

use super::reason::{FailureReason, RefusalReason};
use crate::wire::MARK;

/// Every user may read and the owner may write. The mark tells mqfs's segments from others.
pub(crate) const MODE: Mode = Mode::new(0o644).with(MARK);

pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"mqfsstat");
pub(super) const VERSION: u64 = 1;
pub(super) const SIZE: usize = 4096;

/// No queue has this id.
pub(super) const NO_QUEUE: u64 = u64::MAX;

/// Hands a macro every counter that is one number: its word, its field in the snapshot and in JSON,
/// and its name and help in Prometheus. Words that the parent writes share no cache line with those
/// that children write, from 40 on; two reasons of failure, 46 and 48, are exceptions.
macro_rules! with_numbers {
    ($macro:ident) => {
        $macro! {
            CHILDREN_LIMIT = 5, children_limit, "mqfs_children_limit",
                "Most children allowed at once (--max-children).";
            REQUESTS = 8, requests, "mqfs_requests_total", "Requests received.";
            CHILDREN = 9, children, "mqfs_children", "Children that serve requests.";
            CHILDREN_PEAK = 10, children_peak, "mqfs_children_peak",
                "Most children that served requests at once.";
            SESSIONS = 11, sessions, "mqfs_sessions", "Children that serve sessions.";
            IDLE_SESSIONS = 12, sessions_idle, "mqfs_sessions_idle",
                "Sessions that wait for a question, at most a second ago.";
            HUNG_CHILDREN = 13, children_hung, "mqfs_children_hung",
                "Children that wait for a file system that does not answer, at most a second ago.";
            BYTES_SENT = 56, bytes_sent, "mqfs_bytes_sent_total", "Bytes of files sent.";
            CLIENTS_GONE = 57, clients_gone, "mqfs_clients_gone_total",
                "Clients that left before they had everything.";
            QUESTIONS = 59, questions, "mqfs_questions_total", "Questions answered or failed.";
            NO_WINDOW = 60, windows_failed, "mqfs_windows_failed_total",
                "Windows (shared memory for large files) that could not be made.";
        }
    };
}
pub(super) use with_numbers;

/// The index of each word.
pub(super) mod word {
    macro_rules! words {
        ($($word:ident = $index:literal, $field:ident, $metric:literal, $help:literal;)+) => {
            $(pub(crate) const $word: usize = $index;)+
        };
    }
    super::with_numbers!(words);

    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const QUEUE: usize = 2;
    pub(crate) const SERVER: usize = 3;
    pub(crate) const STARTED: usize = 4;
    pub(crate) const REFUSED: usize = 16;
    pub(crate) const FAILURES: usize = 40;
    pub(crate) const TRANSFER_NANOSECONDS: usize = 58;
    #[cfg(any(feature = "server", test))]
    pub(crate) const YIELDS_TO_SKIP: usize = 61;
    pub(crate) const TRANSFERS: usize = 64;
    pub(crate) const END: usize = TRANSFERS + super::BOUNDS.len() + 1;
}

const _: () = assert!(word::REFUSED + RefusalReason::ALL.len() <= word::FAILURES);
const _: () = assert!(word::FAILURES + FailureReason::ALL.len() <= word::BYTES_SENT);
const _: () = assert!(word::END * size_of::<u64>() <= SIZE);

/// The upper bounds of the histogram of transfer durations, each included in its bucket.
pub const BOUNDS: [Duration; 20] = {
    macro_rules! microseconds {
        ($($bound:literal)+) => { [$(Duration::from_micros($bound)),+] };
    }
    microseconds! {
        100 250 500 1_000 2_500 5_000 10_000 25_000 50_000 100_000 250_000 500_000 1_000_000
        2_500_000 5_000_000 10_000_000 25_000_000 50_000_000 100_000_000 250_000_000
    }
};
