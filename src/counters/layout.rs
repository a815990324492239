//! What stands where in the segment, and the names of what is counted.

use std::time::Duration;

use nix::errno::Errno;

use crate::wire::MARK;
use sysv_ipc::Mode;

pub(super) const MAGIC: u64 = u64::from_ne_bytes(*b"mqfsstat");
pub(super) const VERSION: u64 = 1;
pub(super) const SIZE: usize = 4096;

/// Everybody may read, the owner may write; with the mark by which mqfs knows what it made.
pub(super) const MODE: Mode = Mode::new(0o644).with(MARK);

/// No queue has this id.
pub(super) const NO_QUEUE: u64 = u64::MAX;

/// The words. What the parent writes and what children write stands in cache lines of its own.
pub(super) mod word {
    pub(in crate::counters) const MAGIC: usize = 0;
    pub(in crate::counters) const VERSION: usize = 1;
    pub(in crate::counters) const QUEUE: usize = 2;
    pub(in crate::counters) const SERVER: usize = 3;
    pub(in crate::counters) const STARTED: usize = 4;
    pub(in crate::counters) const MOST_ALLOWED: usize = 5;
    pub(in crate::counters) const REQUESTS: usize = 8;
    pub(in crate::counters) const CHILDREN: usize = 9;
    pub(in crate::counters) const MOST_CHILDREN: usize = 10;
    pub(in crate::counters) const REFUSED: usize = 16;
    pub(in crate::counters) const FAILURES: usize = 40;
    pub(in crate::counters) const BYTES: usize = 56;
    pub(in crate::counters) const GONE: usize = 57;
    pub(in crate::counters) const NANOSECONDS: usize = 58;
    pub(in crate::counters) const TIMES: usize = 64;
    pub(in crate::counters) const END: usize = TIMES + super::BOUNDS.len() + 1;
}

const _: () = assert!(word::REFUSED + Refused::ALL.len() <= word::FAILURES);
const _: () = assert!(word::FAILURES + Failure::ALL.len() <= word::BYTES);
const _: () = assert!(word::END * size_of::<u64>() <= SIZE);

/// The bounds of the histogram of transfer times, each belonging to what is below it: those that
/// Prometheus' libraries have by default, and more in the same steps at both ends.
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

/// Why a request that was given to a child was not answered with what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// `ENOENT`, `ENOTDIR`.
    NotFound,
    /// `EACCES`, `EPERM`.
    Denied,
    /// A folder, a device, a FIFO.
    NotRegular,
    /// Too long, or links without end.
    BadPath,
    /// The file is not the one any more whose beginning arrived.
    Changed,
    /// A read failed, or the file shrank meanwhile.
    Read,
    /// The client did not read for `--stall-timeout`.
    Stalled,
    /// The child was killed, or failed.
    ChildDied,
    /// Anything else.
    Other,
}

impl Failure {
    /// All, in the order of the segment.
    pub const ALL: [Self; 9] = [
        Self::NotFound,
        Self::Denied,
        Self::NotRegular,
        Self::BadPath,
        Self::Changed,
        Self::Read,
        Self::Stalled,
        Self::ChildDied,
        Self::Other,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::NotRegular => "not_regular",
            Self::BadPath => "bad_path",
            Self::Changed => "changed",
            Self::Read => "read",
            Self::Stalled => "stalled",
            Self::ChildDied => "child_died",
            Self::Other => "other",
        }
    }
}

/// What a client is told as the reason.
impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Self::NotFound,
            Errno::EACCES | Errno::EPERM => Self::Denied,
            Errno::EISDIR | Errno::EOPNOTSUPP | Errno::ENXIO => Self::NotRegular,
            Errno::ENAMETOOLONG | Errno::ELOOP | Errno::EXDEV => Self::BadPath,
            Errno::ESTALE => Self::Changed,
            Errno::EIO => Self::Read,
            _ => Self::Other,
        }
    }
}

/// Why a request was not given to a child: see docs/security.md, "Admission".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // each is explained there
pub enum Refused {
    Malformed,
    NoReplyQueue,
    NotPrivate,
    Unreadable,
    UnknownLease,
    HandedToAnother,
    Used,
    ForAnotherServer,
    NoLease,
    WrongCookie,
    UnknownUid,
    UnknownGid,
    Plain,
    PlainForLeased,
    Unsupported,
    NoPeek,
    UserBusy,
    ForkFailed,
}

impl Refused {
    /// All, in the order of the segment.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::NoReplyQueue,
        Self::NotPrivate,
        Self::Unreadable,
        Self::UnknownLease,
        Self::HandedToAnother,
        Self::Used,
        Self::ForAnotherServer,
        Self::NoLease,
        Self::WrongCookie,
        Self::UnknownUid,
        Self::UnknownGid,
        Self::Plain,
        Self::PlainForLeased,
        Self::Unsupported,
        Self::NoPeek,
        Self::UserBusy,
        Self::ForkFailed,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoReplyQueue => "no_reply_queue",
            Self::NotPrivate => "not_private",
            Self::Unreadable => "unreadable",
            Self::UnknownLease => "unknown_lease",
            Self::HandedToAnother => "handed_to_another",
            Self::Used => "used",
            Self::ForAnotherServer => "for_another_server",
            Self::NoLease => "no_lease",
            Self::WrongCookie => "wrong_cookie",
            Self::UnknownUid => "unknown_uid",
            Self::UnknownGid => "unknown_gid",
            Self::Plain => "plain",
            Self::PlainForLeased => "plain_for_leased",
            Self::Unsupported => "unsupported",
            Self::NoPeek => "no_peek",
            Self::UserBusy => "user_busy",
            Self::ForkFailed => "fork_failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_place() {
        for (place, reason) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.name());
        }
        for (place, reason) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.name());
        }
        assert!(BOUNDS.is_sorted());
    }
}
