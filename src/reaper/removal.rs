//! Carrying a verdict out.

use std::fmt;

use sysv_ipc::Pid;

use super::survey::{Finding, last_used, never_used, survey};
use super::verdict::{Proof, Verdict};
use crate::ownership::lease::{self, Head};
use crate::ownership::liveness::{self, Observer};
use crate::ownership::server_lock::{self, ServerState};
use sysv_ipc::{self, QueueStatus};

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
    /// Nothing: it was used since it was found unused.
    Used,
    /// It is an orphan, but not the caller's to remove.
    NotPermitted,
    /// It is an orphan, and the removal failed.
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

/// Removes a queue that was found an orphan, if it still is that queue.
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

/// Ids come round again after some millions of queues: is this one the one that was judged, and does
/// what proved it an orphan still hold? A dead owner stays dead, so the same lease proves the same
/// as before. Returns what the kernel says of it now.
fn look_again(finding: &Finding, proof: Proof) -> Option<QueueStatus> {
    let now = finding.queue.status().ok()?;
    let then = &finding.status;
    if (now.permissions.key, now.permissions.cuid, now.permissions.mode)
        != (then.permissions.key, then.permissions.cuid, then.permissions.mode)
    {
        return None;
    }
    let is_same = match proof {
        Proof::Owner(lease, _) => lease::peek(finding.queue) == Head::Lease(lease),
        Proof::NeverUsed => never_used(&now) && now.changed_at == then.changed_at,
        Proof::NoServer => {
            server_lock::server_state(now.permissions.key, now.permissions.uid) == ServerState::Dead
                && now.last_receiver == then.last_receiver
        }
        Proof::LastUsers => {
            (now.permissions.cgid, now.changed_at) == (then.permissions.cgid, then.changed_at)
        }
    };
    is_same.then_some(now)
}

fn is_still_unused(finding: &Finding, proof: Proof, now: &QueueStatus) -> bool {
    match proof {
        // No lease names it: everything must be as it was. Its last users are asked about again,
        // since a queue that came in its place may look the same but for who lives.
        Proof::LastUsers => {
            *now == finding.status
                && [now.last_sender, now.last_receiver].into_iter().all(has_ended)
        }
        _ => !finding.must_stay_unused || last_used(now) == finding.last_used(),
    }
}

fn has_ended(pid: Option<Pid>) -> bool {
    // The first answer does without /proc, and nearly always does.
    pid.is_some_and(|pid| liveness::no_such_process(pid) || Observer::new().has_ended(pid))
}

/// Removes every orphan, and says in the log what was done. For a server's housekeeping.
pub fn sweep() {
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
