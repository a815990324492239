//! Verdicts on queues and their reasons, as types and in words.

use std::fmt;

use crate::ownership::liveness::{Alive, Dead, reasons};

/// Whether a queue is an orphan, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The owner is proven dead.
    Orphan(Proof),
    /// Used too recently for the [`Policy`](super::Policy::older_than).
    Recent(Proof),
    /// The owner is alive, or nothing proves that it is dead.
    Alive(KeepReason),
    /// Another program made the queue.
    Foreign(ForeignReason),
}

reasons! {
    /// What proves that a queue is an orphan.
    Proof {
        /// The process named by the queue's lease is dead.
        Owner(dead: Dead) = "{dead}",
        NeverUsed = "owner died before using it",
        NoServer = "no server holds the key's lock",
        /// Only with [`Policy::foreign`](super::Policy::foreign).
        LastUsers = "not made by mqfs, its last sender and receiver are gone",
    }
}

reasons! {
    /// Why a queue of mqfs is kept.
    KeepReason {
        /// The process named by its lease counts as alive.
        Owner(alive: Alive) = "{alive}",
        /// Nobody has used it yet, and it is less than ten seconds old.
        JustMade = "just made",
        NoLease = "marked, but without a lease",
        UnknownLease = "a lease of an unknown version",
        Unreadable = "another user's, and not readable",
        /// It is a request queue, like the following two.
        Serving = "its server is running",
        NoLock = "a request queue without a server lock",
        Receiver = "its last receiver is running",
    }
}

reasons! {
    /// Why a queue that mqfs did not make is left alone.
    ForeignReason {
        /// The policy does not [include](super::Policy::foreign) such queues.
        NotAsked = "not made by mqfs",
        /// It has a key, so a program that is not running now can still come back to it.
        HasKey = "not made by mqfs, and under a key",
        /// Its mode lets other users in, so anybody may be its last user.
        Shared = "not made by mqfs, and open to other users",
        /// Nobody has sent to it or received from it, or this pid namespace does not show who did.
        UsersUnknown = "not made by mqfs, its last sender or receiver unknown",
        InUse = "not made by mqfs, its last sender or receiver is running",
        Waiter = "not made by mqfs, and a process may wait on it",
    }
}

impl Verdict {
    /// The verdict in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Orphan(_) => "orphan",
            Self::Recent(_) => "recent",
            Self::Alive(_) => "alive",
            Self::Foreign(_) => "foreign",
        }
    }

    /// Whether the queue may be removed.
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
            Self::Alive(reason) => reason.fmt(f),
            Self::Foreign(reason) => reason.fmt(f),
        }
    }
}
