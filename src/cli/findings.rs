//! What the reaper found out about queues, as cells of a table and as JSON.

use serde_json::{Value, json};
use sysv_ipc::Pid;

use super::table::{Names, age_text, seconds_since};
use crate::reaper::Finding;

/// What a table shows of a queue.
pub(super) struct Cells {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) user: String,
    pub(super) pid: String,
    pub(super) age: String,
    pub(super) idle: String,
    pub(super) messages: String,
    pub(super) bytes: String,
    pub(super) capacity: String,
    pub(super) verdict: String,
}

pub(super) fn cells(finding: &Finding, names: &mut Names) -> Cells {
    let (status, verdict) = (&finding.status, finding.verdict);
    Cells {
        id: finding.queue.id().to_string(),
        key: status.permissions.key.to_string(),
        user: names.of(status.permissions.cuid).to_owned(),
        pid: finding.owner().map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        age: age_text(seconds_since(status.changed_at)),
        idle: age_text(seconds_since(finding.last_used())),
        messages: status.messages.to_string(),
        bytes: status.bytes.to_string(),
        capacity: status.max_bytes.to_string(),
        verdict: format!("{}: {verdict}", verdict.name()),
    }
}

pub(super) fn json(finding: &Finding) -> Value {
    let status = &finding.status;
    json!({
        "id": finding.queue.id().get(),
        "key": status.permissions.key.to_string(),
        "uid": status.permissions.uid.as_raw(),
        "cuid": status.permissions.cuid.as_raw(),
        "mode": status.permissions.mode.to_string(),
        "pid": finding.owner().map(Pid::as_raw),
        "last_sender": status.last_sender.map(Pid::as_raw),
        "last_receiver": status.last_receiver.map(Pid::as_raw),
        "age_seconds": seconds_since(status.changed_at),
        "idle_seconds": seconds_since(finding.last_used()),
        "messages": status.messages,
        "bytes": status.bytes,
        "capacity": status.max_bytes,
        "verdict": finding.verdict.name(),
        "reason": finding.verdict.to_string(),
    })
}
