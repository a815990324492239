//! Carrying a verdict out.

use std::fmt;

use super::verdict::{Finding, Proof, Verdict, never_used, survey};
use crate::process::lease::{self, Head};
use crate::process::server_lock::{self, ServerState};
use crate::sysv;

/// What was done about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Nothing: it is no orphan.
    Kept,
    /// It was removed.
    Removed,
    /// It had gone by itself, or is another queue by now.
    Vanished,
    /// It is an orphan, but not the caller's to remove.
    NotPermitted,
    /// It is an orphan, and the removal failed.
    Failed(sysv::Error),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Removed => "removed",
            Self::Vanished => "gone by itself",
            Self::NotPermitted => "not permitted",
            Self::Failed(error) => return error.fmt(f),
        })
    }
}

/// Removes a queue that was found an orphan, if it still is that queue.
pub fn remove(finding: &Finding) -> Action {
    let Verdict::Orphan(proof) = finding.verdict else { return Action::Kept };
    if !is_still(finding, proof) {
        return Action::Vanished;
    }
    match finding.queue.remove() {
        Ok(()) => Action::Removed,
        Err(error) if error.is_gone() => Action::Vanished,
        Err(error) if error.is_denied() => Action::NotPermitted,
        Err(error) => Action::Failed(error),
    }
}

/// Ids come round again after some millions of queues: is this one the one that was judged? A dead
/// owner stays dead, so the same lease proves the same as before.
fn is_still(finding: &Finding, proof: Proof) -> bool {
    let Ok(now) = finding.queue.status() else { return false };
    let then = &finding.status;
    if (now.key, now.cuid, now.mode) != (then.key, then.cuid, then.mode) {
        return false;
    }
    match proof {
        Proof::Owner(lease, _) => lease::peek(finding.queue) == Head::Lease(lease),
        Proof::NeverUsed => never_used(&now) && now.changed_at == then.changed_at,
        Proof::NoServer => {
            server_lock::server_state(now.key, now.uid) == ServerState::Dead
                && now.last_receiver == then.last_receiver
        }
    }
}

/// Removes every orphan, and says in the log what was done. For a server's housekeeping.
pub fn sweep() {
    let findings = match survey() {
        Ok(findings) => findings,
        Err(error) => return tracing::error!(%error, "cannot look for orphaned queues"),
    };
    for finding in findings.iter().filter(|finding| finding.verdict.is_orphan()) {
        let queue = finding.queue.id().get();
        let (reason, uid) = (finding.verdict, finding.status.cuid.as_raw());
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
