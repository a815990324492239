use sysv_ipc::{Permissions, Pid, QueueStatus};

use super::finding::{Finding, last_used, was_never_used};
use super::leftovers::remove_lock_and_counters;
use super::policy::Policy;
use super::verdict::{Proof, Verdict};
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::{Observer, reasons};
use crate::ownership::server_state::ServerState;

reasons! {
    /// What [`remove`] did.
    Action {
        /// The queue is no orphan.
        Kept = "kept",
        Removed = "removed",
        /// After the survey the queue was removed or used, or its id is another queue's now.
        Changed = "changed meanwhile",
        /// The queue is an orphan, but the caller may not remove it.
        NotPermitted = "not permitted",
        /// The queue is an orphan, but `msgctl` failed.
        Failed(error: sysv_ipc::Error) = "{error}",
    }
}

/// Removes an orphan, if its id still stands for the same queue.
pub fn remove(finding: &Finding) -> Action {
    let Verdict::Orphan(proof) = finding.verdict else { return Action::Kept };
    if !finding.queue.status().is_ok_and(|now| is_unchanged(finding, proof, &now)) {
        return Action::Changed;
    }
    match finding.queue.remove() {
        Ok(()) => {
            if proof == Proof::NoServer {
                let Permissions { key, uid, .. } = finding.status.permissions;
                remove_lock_and_counters(key, uid);
            }
            Action::Removed
        }
        Err(error) if error.is_gone() => Action::Changed,
        Err(error) if error.is_denied() => Action::NotPermitted,
        Err(error) => Action::Failed(error),
    }
}

/// Whether the queue is the same, unused, and still proven an orphan. Otherwise its id may belong
/// to another queue now: the kernel reuses ids after some millions of queues. A dead owner stays
/// dead, so the same lease is the same proof.
fn is_unchanged(finding: &Finding, proof: Proof, now: &QueueStatus) -> bool {
    let then = &finding.status;
    let Permissions { key, uid, .. } = now.permissions;
    let identity = |status: &QueueStatus| {
        let Permissions { key, cuid, mode, .. } = status.permissions;
        (key, cuid, mode, last_used(status))
    };
    let is_proven = || match proof {
        Proof::Owner(_) => {
            finding.lease.is_some_and(|lease| lease::peek(finding.queue) == Head::Lease(lease))
        }
        Proof::NeverUsed => was_never_used(now),
        Proof::NoServer => {
            ServerState::of(key, uid) == ServerState::Dead
                && now.last_receiver == then.last_receiver
        }
        // No lease identifies the queue, so its whole state must be the same. And its last users
        // must still be dead: another queue that has its id now may look the same otherwise.
        Proof::LastUsers => {
            let observer = Observer::here();
            let has_ended = |pid: Option<Pid>| pid.is_some_and(|pid| observer.has_ended(pid));
            now == then && has_ended(now.last_sender) && has_ended(now.last_receiver)
        }
    };
    identity(now) == identity(then) && is_proven()
}

/// Removes every orphan and other leftovers, and logs it: a server's housekeeping.
pub fn sweep() {
    match Policy::new().remove_leftovers() {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed what dead servers and children left"),
        Err(error) => tracing::error!(%error, "cannot look for shared memory that was left"),
    }
    let findings = match Policy::new().survey() {
        Ok(findings) => findings,
        Err(error) => return tracing::error!(%error, "cannot look for orphaned queues"),
    };
    for finding in findings.iter().filter(|finding| finding.verdict.is_orphan()) {
        let queue = finding.queue.id().get();
        let (reason, uid) = (finding.verdict, finding.status.permissions.cuid.as_raw());
        match remove(finding) {
            Action::Removed => tracing::info!(queue, uid, %reason, "removed an orphaned queue"),
            Action::Failed(error) => {
                tracing::warn!(queue, uid, %error, "cannot remove an orphaned queue");
            }
            action => tracing::debug!(queue, uid, %reason, %action, "orphaned queue"),
        }
    }
}
