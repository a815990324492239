//! A verdict on every queue, with its reason. *Orphan* takes proof; doubt means alive.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::process::lease::{self, Head};
use crate::process::liveness::{Alive, Dead, Life, Observer};
use crate::process::server_lock::{self, ServerState};
use crate::sysv::{self, Queue, Status, queues};
use crate::wire::{Lease, OwnerId, REPLY_QUEUE_MODE, is_request_queue_mode};

/// What was found of one queue.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finding {
    /// The queue.
    pub queue: Queue,
    /// What the kernel said of it.
    pub status: Status,
    /// Who its lease says that it belongs to.
    pub owner: Option<OwnerId>,
    /// Whether it is an orphan.
    pub verdict: Verdict,
}

/// Whether a queue is an orphan, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Its owner is proven dead.
    Orphan(Proof),
    /// Its owner lives, or nothing proves that it does not.
    Alive(Doubt),
    /// It has neither mark nor lease: other software's.
    Foreign,
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

/// How old a marked queue that was never used must be. Should a clock that jumped make it look
/// older, its owner's first send finds it gone and the owner starts over: nothing is lost.
const GRACE: Duration = Duration::from_secs(10);

/// Judges every queue of the IPC namespace.
///
/// # Errors
/// None are known.
pub fn survey() -> Result<Vec<Finding>, sysv::Error> {
    let seen: Vec<_> = queues()?
        .map(|(queue, status)| {
            let head = is_reply_queue(&status).then(|| lease::peek(queue));
            (queue, status, head)
        })
        .collect();
    // Made only now: see Observer. What it sees is younger than every lease read above.
    let observer = Observer::new();
    let now = SystemTime::now();
    Ok(seen
        .into_iter()
        .filter(|(_, _, head)| *head != Some(Head::Gone))
        .map(|(queue, status, head)| Finding {
            queue,
            status,
            owner: match head {
                Some(Head::Lease(lease)) => Some(lease.owner),
                _ => None,
            },
            verdict: match head {
                Some(head) => judge_reply_queue(&status, head, &observer, now),
                None => judge_keyed(&status, &observer),
            },
        })
        .collect())
}

fn is_reply_queue(status: &Status) -> bool {
    status.key.is_private() && status.mode == REPLY_QUEUE_MODE
}

fn judge_reply_queue(status: &Status, head: Head, observer: &Observer, now: SystemTime) -> Verdict {
    if never_used(status) {
        // A time in the future is no age.
        let age = now.duration_since(status.changed_at).unwrap_or_default();
        return if age > GRACE {
            Verdict::Orphan(Proof::NeverUsed)
        } else {
            Verdict::Alive(Doubt::JustMade)
        };
    }
    match head {
        Head::Lease(lease) => match observer.life_of(&lease.owner) {
            Life::Dead(dead) => Verdict::Orphan(Proof::Owner(lease, dead)),
            Life::Alive(alive) => Verdict::Alive(Doubt::Owner(alive)),
        },
        Head::UnknownLease(_) => Verdict::Alive(Doubt::UnknownLease),
        Head::Unreadable(_) => Verdict::Alive(Doubt::Unreadable),
        Head::Other | Head::Nothing | Head::Gone => Verdict::Alive(Doubt::NoLease),
    }
}

pub(super) fn never_used(status: &Status) -> bool {
    // Times as well as pids: a process that this pid namespace cannot see reads as pid 0.
    status.messages == 0
        && (status.last_sender, status.last_receiver) == (None, None)
        && (status.sent_at, status.received_at) == (None, None)
}

fn judge_keyed(status: &Status, observer: &Observer) -> Verdict {
    if status.key.is_private() || !is_request_queue_mode(status.mode) {
        return Verdict::Foreign;
    }
    match server_lock::server_state(status.key, status.uid) {
        ServerState::Running => Verdict::Alive(Doubt::Serving),
        ServerState::NoLock => Verdict::Alive(Doubt::NoLock),
        // The lock alone would do, were it not that other software could have made such a queue
        // and such a semaphore.
        ServerState::Dead => match status.last_receiver {
            Some(pid) if !observer.has_ended(pid) => Verdict::Alive(Doubt::Receiver),
            _ => Verdict::Orphan(Proof::NoServer),
        },
    }
}

impl Verdict {
    /// The verdict in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Orphan(_) => "orphan",
            Self::Alive(_) => "alive",
            Self::Foreign => "foreign",
        }
    }

    /// Whether it is an orphan.
    pub fn is_orphan(&self) -> bool {
        matches!(self, Self::Orphan(_))
    }
}

/// The reason of the verdict.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orphan(Proof::Owner(_, dead)) => dead.fmt(f),
            Self::Orphan(Proof::NeverUsed) => f.write_str("owner died before using it"),
            Self::Orphan(Proof::NoServer) => f.write_str("no server holds the key's lock"),
            Self::Alive(doubt) => doubt.fmt(f),
            Self::Foreign => f.write_str("not made by mqfs"),
        }
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
