//! Judges every queue. *Orphan* takes proof; in doubt, the owner is alive.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use sysv_ipc::{Error, Mode, Permissions, Pid, Queue, QueueStatus, queues};

use super::finding::{Finding, is_reply_queue, is_request_queue, last_used, was_never_used};
use super::policy::Policy;
use super::verdict::{ForeignReason, KeepReason, Proof, Verdict};
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::{Life, Observer};
use crate::ownership::server_state::ServerState;
use crate::wire::OwnerId;

impl Policy {
    /// Judges every queue that this policy covers. Fails if the kernel's list cannot be read.
    pub fn survey(&self) -> Result<Vec<Finding>, Error> {
        let seen: Vec<_> = queues()?
            .filter(|(_, status)| self.uid.is_none_or(|uid| uid == status.permissions.cuid))
            .map(|(queue, status)| {
                let head = is_reply_queue(&status).then(|| lease::peek(queue));
                (queue, status, head)
            })
            .filter(|(_, _, head)| *head != Some(Head::Gone))
            .collect();
        // The observer must be younger than every lease that it is asked about.
        let mut judge = Judge {
            policy: self,
            observer: Observer::here(),
            now: SystemTime::now(),
            owners: HashMap::new(),
            ended: HashMap::new(),
        };
        let judged = seen.into_iter().map(|(queue, status, head)| judge.judge(queue, status, head));
        Ok(judged.collect())
    }
}

/// How old a marked queue without any use must be. If its owner was stopped for so long (SIGSTOP)
/// or a clock jumped, the owner's first send finds the queue gone and it starts again: nothing is
/// lost.
const GRACE: Duration = Duration::from_secs(10);

/// Judges the queues of one survey. It asks about each process once, since with thousands of queues
/// these questions take most of the time.
struct Judge<'a> {
    policy: &'a Policy,
    observer: Observer,
    now: SystemTime,
    owners: HashMap<OwnerId, Life>,
    ended: HashMap<Pid, bool>,
}

impl Judge<'_> {
    /// `head`: the first message of a reply queue; None for any other queue.
    fn judge(&mut self, queue: Queue, status: QueueStatus, head: Option<Head>) -> Finding {
        let verdict = match head {
            Some(head) => self.judge_reply_queue(&status, head),
            None if is_request_queue(&status) => self.judge_request_queue(&status),
            None => self.judge_foreign(queue, &status),
        };
        let verdict = match verdict {
            Verdict::Orphan(proof) if self.is_recent(proof, &status) => Verdict::Recent(proof),
            verdict => verdict,
        };
        let lease = if let Some(Head::Lease(lease)) = head { Some(lease) } else { None };
        Finding { queue, status, verdict, lease }
    }

    /// Whether a queue was used too recently to be an orphan by this proof. A time in the future
    /// proves no age but 0.
    fn is_recent(&self, proof: Proof, status: &QueueStatus) -> bool {
        let least = self.policy.older_than.unwrap_or(match proof {
            Proof::LastUsers => Duration::from_secs(60 * 60),
            _ => Duration::ZERO,
        });
        // The kernel drops fractions, so the queue may have been used up to a second later.
        let proven = least.saturating_add(Duration::from_secs(1));
        let unused = self.now.duration_since(last_used(status));
        !least.is_zero() && !unused.is_ok_and(|unused| unused > proven)
    }

    fn judge_reply_queue(&mut self, status: &QueueStatus, head: Head) -> Verdict {
        if was_never_used(status) {
            // A time in the future is no age.
            let age = self.now.duration_since(status.changed_at).unwrap_or_default();
            let just_made = Verdict::Alive(KeepReason::JustMade);
            return if age > GRACE { Verdict::Orphan(Proof::NeverUsed) } else { just_made };
        }
        match head {
            Head::Lease(lease) => match self.life_of(&lease.owner) {
                Life::Dead(dead) => Verdict::Orphan(Proof::Owner(dead)),
                Life::Alive(alive) => Verdict::Alive(KeepReason::Owner(alive)),
            },
            Head::UnknownLease(_) => Verdict::Alive(KeepReason::UnknownLease),
            Head::Unreadable(_) => Verdict::Alive(KeepReason::Unreadable),
            Head::Other | Head::Nothing | Head::Gone => Verdict::Alive(KeepReason::NoLease),
        }
    }

    fn judge_request_queue(&mut self, status: &QueueStatus) -> Verdict {
        match ServerState::of(status.permissions.key, status.permissions.uid) {
            ServerState::Running => Verdict::Alive(KeepReason::Serving),
            ServerState::NoLock => Verdict::Alive(KeepReason::NoLock),
            // The lock alone is no proof: other software could make such a queue and semaphore.
            ServerState::Dead => match status.last_receiver {
                Some(pid) if !self.has_ended(pid) => Verdict::Alive(KeepReason::Receiver),
                _ => Verdict::Orphan(Proof::NoServer),
            },
        }
    }

    /// The kernel translates the pids in a queue's status to our pid namespace, and shows 0 for a
    /// process outside it (`pid_vnr` in kernel/pid.c). If it shows a pid that no process has, that
    /// process is dead. If it shows 0, nothing is known.
    fn judge_foreign(&mut self, queue: Queue, status: &QueueStatus) -> Verdict {
        let Permissions { key, uid, cuid, mode, .. } = status.permissions;
        let reason = if !self.policy.foreign {
            ForeignReason::NotAsked
        } else if !key.is_private() {
            ForeignReason::HasKey
        } else if uid != cuid || mode.without(Mode::new(0o711)) != Mode::new(0) {
            // The mode or the owner lets another user send and receive in the creator's place.
            ForeignReason::Shared
        } else {
            match status.last_sender.zip(status.last_receiver) {
                // A living client's queue looks like this until the client reads.
                None => ForeignReason::UsersUnknown,
                Some((sender, receiver))
                    if !self.has_ended(sender) || !self.has_ended(receiver) =>
                {
                    ForeignReason::InUse
                }
                _ if self.observer.may_be_waited_on(queue.id()) => ForeignReason::Waiter,
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
