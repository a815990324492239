//! Looking at every queue, and judging it. *Orphan* takes proof; doubt means alive.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use sysv_ipc::{Pid, Uid};

use super::verdict::{Doubt, Proof, Stranger, Verdict};
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::{Life, Observer};
use crate::ownership::server_lock::{self, ServerState};
use crate::wire::{OwnerId, REPLY_QUEUE_MODE, is_request_queue_mode};
use sysv_ipc::{self, Queue, QueueStatus, queues};

/// What was found of one queue.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finding {
    /// The queue.
    pub queue: Queue,
    /// What the kernel said of it.
    pub status: QueueStatus,
    /// Who its lease says that it belongs to.
    pub owner: Option<OwnerId>,
    /// Whether it is an orphan.
    pub verdict: Verdict,
    /// The verdict rests on how long nobody used it.
    pub(super) must_stay_unused: bool,
}

/// Which queues to look at, and which orphans may be removed. By default every queue, and every
/// orphan that mqfs made.
///
/// ```
/// use std::time::Duration;
///
/// use mqfs::reaper::Policy;
///
/// let policy = Policy { older_than: Some(Duration::from_secs(3600)), ..Policy::default() };
/// let orphans = policy.survey()?.into_iter().filter(|finding| finding.verdict.is_orphan());
/// println!("{} queues were left behind an hour ago or earlier", orphans.count());
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// An orphan that was made, changed or used within this time is [recent](Verdict::Recent). None:
    /// there is no such time, but [`Policy::FOREIGN_AGE`] for queues that mqfs did not make.
    pub older_than: Option<Duration>,
    /// Look only at queues that this user made.
    pub uid: Option<Uid>,
    /// Judge queues that mqfs did not make, too: one is an orphan if it has no key, its last sender
    /// and its last receiver are both known and dead, and nobody is seen to wait on it.
    ///
    /// This is no proof, as it is for mqfs's own queues: a program may keep such a queue without
    /// using it, and who received last can be a thread that ended before its process.
    pub foreign: bool,
}

impl Policy {
    /// How long a queue that mqfs did not make must have been left alone, unless told otherwise.
    pub const FOREIGN_AGE: Duration = Duration::from_secs(60 * 60);

    /// Judges every queue of the IPC namespace that is to be looked at.
    ///
    /// # Errors
    /// None are known.
    pub fn survey(&self) -> Result<Vec<Finding>, sysv_ipc::Error> {
        let seen: Vec<_> = queues()?
            .filter(|(_, status)| self.uid.is_none_or(|uid| uid == status.permissions.cuid))
            .map(|(queue, status)| {
                let head = is_reply_queue(&status).then(|| lease::peek(queue));
                (queue, status, head)
            })
            .filter(|(_, _, head)| *head != Some(Head::Gone))
            .collect();
        // Made only now: see Observer. What it sees is younger than every lease read above.
        let mut judge = Judge::new(self);
        Ok(seen
            .into_iter()
            .map(|(queue, status, head)| judge.finding(queue, status, head))
            .collect())
    }

    /// How long nobody may have used a queue that counts as an orphan on this proof.
    fn age_for(&self, proof: Proof) -> Duration {
        self.older_than.unwrap_or(match proof {
            Proof::LastUsers => Self::FOREIGN_AGE,
            _ => Duration::ZERO,
        })
    }
}

/// Judges every queue of the IPC namespace, by the default [`Policy`].
///
/// # Errors
/// None are known.
pub fn survey() -> Result<Vec<Finding>, sysv_ipc::Error> {
    Policy::default().survey()
}

impl Finding {
    /// When the queue was last made, changed, sent to or received from, in whole seconds.
    pub fn last_used(&self) -> SystemTime {
        last_used(&self.status)
    }
}

pub(super) fn last_used(status: &QueueStatus) -> SystemTime {
    let times = [status.sent_at, status.received_at];
    times.into_iter().flatten().fold(status.changed_at, SystemTime::max)
}

fn is_reply_queue(status: &QueueStatus) -> bool {
    status.permissions.key.is_private() && status.permissions.mode == REPLY_QUEUE_MODE
}

/// How old a marked queue that was never used must be. Should a clock that jumped make it look
/// older, its owner's first send finds it gone and the owner starts over: nothing is lost.
const GRACE: Duration = Duration::from_secs(10);

/// Judges the queues of one survey, and asks about each process once: with thousands of queues that
/// is what takes the time.
struct Judge<'a> {
    policy: &'a Policy,
    observer: Observer,
    now: SystemTime,
    owners: HashMap<OwnerId, Life>,
    ended: HashMap<Pid, bool>,
}

impl<'a> Judge<'a> {
    fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            observer: Observer::new(),
            now: SystemTime::now(),
            owners: HashMap::new(),
            ended: HashMap::new(),
        }
    }

    fn finding(&mut self, queue: Queue, status: QueueStatus, head: Option<Head>) -> Finding {
        let verdict = match head {
            Some(head) => self.judge_reply_queue(&status, head),
            None if !status.permissions.key.is_private()
                && is_request_queue_mode(status.permissions.mode) =>
            {
                self.judge_request_queue(&status)
            }
            None => self.judge_stranger(queue, &status),
        };
        let (verdict, must_stay_unused) = match verdict {
            Verdict::Orphan(proof) => {
                let age = self.policy.age_for(proof);
                let old = age.is_zero() || self.is_unused_for(age, &status);
                let verdict = if old { verdict } else { Verdict::Recent(proof) };
                (verdict, !age.is_zero())
            }
            verdict => (verdict, false),
        };
        let owner = match head {
            Some(Head::Lease(lease)) => Some(lease.owner),
            _ => None,
        };
        Finding { queue, status, owner, verdict, must_stay_unused }
    }

    fn is_unused_for(&self, age: Duration, status: &QueueStatus) -> bool {
        // The kernel keeps whole seconds: it may have been used up to one later. A time in the
        // future is no age.
        const SECOND: Duration = Duration::from_secs(1);
        self.now
            .duration_since(last_used(status))
            .is_ok_and(|unused| unused > age.saturating_add(SECOND))
    }

    fn judge_reply_queue(&mut self, status: &QueueStatus, head: Head) -> Verdict {
        if never_used(status) {
            // A time in the future is no age.
            let age = self.now.duration_since(status.changed_at).unwrap_or_default();
            return if age > GRACE {
                Verdict::Orphan(Proof::NeverUsed)
            } else {
                Verdict::Alive(Doubt::JustMade)
            };
        }
        match head {
            Head::Lease(lease) => match self.life_of(&lease.owner) {
                Life::Dead(dead) => Verdict::Orphan(Proof::Owner(lease, dead)),
                Life::Alive(alive) => Verdict::Alive(Doubt::Owner(alive)),
            },
            Head::UnknownLease(_) => Verdict::Alive(Doubt::UnknownLease),
            Head::Unreadable(_) => Verdict::Alive(Doubt::Unreadable),
            Head::Other | Head::Nothing | Head::Gone => Verdict::Alive(Doubt::NoLease),
        }
    }

    fn judge_request_queue(&mut self, status: &QueueStatus) -> Verdict {
        match server_lock::server_state(status.permissions.key, status.permissions.uid) {
            ServerState::Running => Verdict::Alive(Doubt::Serving),
            ServerState::NoLock => Verdict::Alive(Doubt::NoLock),
            // The lock alone would do, were it not that other software could have made such a queue
            // and such a semaphore.
            ServerState::Dead => match status.last_receiver {
                Some(pid) if !self.has_ended(pid) => Verdict::Alive(Doubt::Receiver),
                _ => Verdict::Orphan(Proof::NoServer),
            },
        }
    }

    /// A pid of a queue's status is a number in our own pid namespace, or reads 0 if the process is
    /// not in it (`pid_vnr` in kernel/pid.c), wherever that process recorded it. So a number that is
    /// there and that nobody has any more was the number of a process that is dead, in whatever
    /// namespace this one runs; without the number nothing is known.
    fn judge_stranger(&mut self, queue: Queue, status: &QueueStatus) -> Verdict {
        let reason = if !self.policy.foreign {
            Stranger::NotAsked
        } else if !status.permissions.key.is_private() {
            Stranger::HasKey
        } else {
            match (status.last_sender, status.last_receiver) {
                // This is what the queue of a living client looks like that has not read yet.
                (None, _) => Stranger::SenderUnknown,
                (_, None) => Stranger::ReceiverUnknown,
                (Some(sender), _) if !self.has_ended(sender) => Stranger::Sender,
                (_, Some(receiver)) if !self.has_ended(receiver) => Stranger::Receiver,
                _ if self.observer.may_be_waited_on(queue.id()) => Stranger::Waiter,
                _ => return Verdict::Orphan(Proof::LastUsers),
            }
        };
        Verdict::Foreign(reason)
    }

    fn life_of(&mut self, owner: &OwnerId) -> Life {
        *self.owners.entry(*owner).or_insert_with(|| self.observer.life_of(owner))
    }

    fn has_ended(&mut self, pid: Pid) -> bool {
        *self.ended.entry(pid).or_insert_with(|| self.observer.has_ended(pid))
    }
}

pub(super) fn never_used(status: &QueueStatus) -> bool {
    // Times as well as pids: a process that this pid namespace cannot see reads as pid 0.
    status.messages == 0
        && (status.last_sender, status.last_receiver) == (None, None)
        && (status.sent_at, status.received_at) == (None, None)
}
