//! What can be said of a queue, in types and in words.

use std::fmt;

use crate::ownership::liveness::{Alive, Dead};
use crate::wire::Lease;

/// Whether a queue is an orphan, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Its owner is proven dead.
    Orphan(Proof),
    /// An orphan, but made, changed or used within [`Policy::older_than`](super::Policy::older_than).
    Recent(Proof),
    /// Its owner lives, or nothing proves that it does not.
    Alive(Doubt),
    /// It has neither mark nor lease: other software's.
    Foreign(Stranger),
}

/// What proves a queue an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The owner named by its lease is dead.
    Owner(Lease, Dead),
    /// A client made it and died before its next system call.
    NeverUsed,
    /// A request queue whose server lock nobody holds.
    NoServer,
    /// Other software's queue without a key, whose last sender and last receiver are dead. Only by
    /// [`Policy::foreign`](super::Policy::foreign).
    LastUsers,
}

/// Why a queue counts as alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// The owner named by its lease.
    Owner(Alive),
    /// Marked, never used, and younger than ten seconds.
    JustMade,
    /// Marked, but without a lease at its head.
    NoLease,
    /// A lease of a version that this build does not know.
    UnknownLease,
    /// Another user's, which the caller may not read.
    Unreadable,
    /// A request queue whose server lock is held.
    Serving,
    /// A request queue whose server lock does not tell.
    NoLock,
    /// A request queue whose last receiver is there.
    Receiver,
}

/// Why a queue that mqfs did not make is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stranger {
    /// [`Policy::foreign`](super::Policy::foreign) was not asked for.
    NotAsked,
    /// It has a key, by which anybody may still come back to it.
    HasKey,
    /// Nobody sent yet, or a process that this pid namespace cannot see.
    SenderUnknown,
    /// Nobody received yet, or a process that this pid namespace cannot see.
    ReceiverUnknown,
    /// A process has the pid of who sent last.
    Sender,
    /// A process or thread has the id of who received last.
    Receiver,
    /// A process waits to send or to receive there, or on a queue that cannot be told.
    Waiter,
}

impl Verdict {
    /// The verdict in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Orphan(_) => "orphan",
            Self::Recent(_) => "recent",
            Self::Alive(_) => "alive",
            Self::Foreign(_) => "foreign",
        }
    }

    /// Whether it is an orphan, and not a recent one.
    pub fn is_orphan(&self) -> bool {
        matches!(self, Self::Orphan(_))
    }
}

/// The reason of the verdict.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orphan(proof) => proof.fmt(f),
            Self::Recent(proof) => write!(f, "{proof}, but it was used recently"),
            Self::Alive(doubt) => doubt.fmt(f),
            Self::Foreign(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner(_, dead) => return dead.fmt(f),
            Self::NeverUsed => "owner died before using it",
            Self::NoServer => "no server holds the key's lock",
            Self::LastUsers => "not made by mqfs, its last sender and receiver are gone",
        })
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner(alive) => return alive.fmt(f),
            Self::JustMade => "just made",
            Self::NoLease => "marked, but without a lease",
            Self::UnknownLease => "a lease of an unknown version",
            Self::Unreadable => "another user's, not to be read",
            Self::Serving => "its server is running",
            Self::NoLock => "a request queue without a server lock",
            Self::Receiver => "its last receiver is running",
        })
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => "not made by mqfs",
            Self::HasKey => "not made by mqfs, and under a key",
            Self::SenderUnknown => "not made by mqfs, its last sender unknown",
            Self::ReceiverUnknown => "not made by mqfs, its last receiver unknown",
            Self::Sender => "not made by mqfs, its last sender is running",
            Self::Receiver => "not made by mqfs, its last receiver is running",
            Self::Waiter => "not made by mqfs, and a process may wait on it",
        })
    }
}
