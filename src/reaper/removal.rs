//! Removing orphans.

use std::fmt;

use sysv_ipc::{Pid, QueueStatus};

use super::finding::{Finding, last_used, was_never_used};
use super::judge::survey;
use super::policy::Policy;
use super::verdict::{Proof, Verdict};
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::Observer;
use crate::ownership::server_state::ServerState;

/// What [`remove`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Nothing: the queue is no orphan.
    Kept,
    /// It removed the queue.
    Removed,
    /// Nothing: the queue is gone, or its id is another queue's by now.
    Vanished,
    /// Nothing: the queue was used after the survey.
    Used,
    /// Nothing: the queue is an orphan, but the caller may not remove it.
    NotPermitted,
    /// Nothing: the queue is an orphan, but `msgctl` failed.
    Failed(sysv_ipc::Error),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Removed => "removed",
            Self::Vanished => "gone by itself",
            Self::Used => "used meanwhile",
            Self::NotPermitted => "not permitted",
            Self::Failed(error) => return error.fmt(f),
        })
    }
}

/// Removes an orphan, if its id still stands for the same queue.
pub fn remove(finding: &Finding) -> Action {
    let Verdict::Orphan(proof) = finding.verdict else { return Action::Kept };
    let Some(now) = look_again(finding, proof) else { return Action::Vanished };
    if !is_still_unused(finding, proof, &now) {
        return Action::Used;
    }
    match finding.queue.remove() {
        Ok(()) => Action::Removed,
        Err(error) if error.is_gone() => Action::Vanished,
        Err(error) if error.is_denied() => Action::NotPermitted,
        Err(error) => Action::Failed(error),
    }
}

/// Looks at the queue again. None: its id belongs to another queue now (the kernel reuses ids after
/// some millions of queues), or the proof that it is an orphan no longer holds. A dead owner stays
/// dead, so the same lease is the same proof.
fn look_again(finding: &Finding, proof: Proof) -> Option<QueueStatus> {
    let now = finding.queue.status().ok()?;
    let (then, permissions) = (&finding.status, now.permissions);
    let identity = |status: &QueueStatus| {
        (status.permissions.key, status.permissions.cuid, status.permissions.mode)
    };
    if identity(&now) != identity(then) {
        return None;
    }
    let is_same = match proof {
        Proof::Owner(_) => {
            finding.lease.is_some_and(|lease| lease::peek(finding.queue) == Head::Lease(lease))
        }
        Proof::NeverUsed => was_never_used(&now) && now.changed_at == then.changed_at,
        Proof::NoServer => {
            ServerState::of(permissions.key, permissions.uid) == ServerState::Dead
                && now.last_receiver == then.last_receiver
        }
        Proof::LastUsers => {
            (permissions.cgid, now.changed_at) == (then.permissions.cgid, then.changed_at)
        }
    };
    is_same.then_some(now)
}

fn is_still_unused(finding: &Finding, proof: Proof, now: &QueueStatus) -> bool {
    match proof {
        // No lease identifies the queue, so its whole state must be the same. And its last users
        // must still be dead: another queue that has its id now may look the same otherwise.
        Proof::LastUsers => {
            let observer = Observer::here();
            let has_ended = |pid: Option<Pid>| pid.is_some_and(|pid| observer.has_ended(pid));
            *now == finding.status && has_ended(now.last_sender) && has_ended(now.last_receiver)
        }
        _ => !finding.must_stay_unused || last_used(now) == finding.last_used(),
    }
}

/// Removes every orphan and every window that was left, and logs what it did. For a server's
/// housekeeping.
pub fn sweep() {
    match Policy::new().remove_windows() {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed shared memory that dead children left"),
        Err(error) => tracing::error!(%error, "cannot look for shared memory that was left"),
    }
    let findings = match survey() {
        Ok(findings) => findings,
        Err(error) => return tracing::error!(%error, "cannot look for orphaned queues"),
    };
    for finding in findings.iter().filter(|finding| finding.verdict.is_orphan()) {
        let queue = finding.queue.id().get();
        let (reason, uid) = (finding.verdict, finding.status.permissions.cuid.as_raw());
        match remove(finding) {
            Action::Removed => {
                tracing::info!(queue, uid, reason = reason.to_string(), "removed an orphaned queue")
            }
            Action::Failed(error) => {
                tracing::warn!(queue, uid, %error, "cannot remove an orphaned queue");
            }
            action => {
                tracing::debug!(queue, uid, reason = reason.to_string(), %action, "orphaned queue")
            }
        }
    }
}
