//! Queues, and what the reaper found out about them, as cells of a table and as JSON.

use serde_json::{Value, json};
use sysv_ipc::{Pid, Queue, QueueStatus};

use super::table::{Names, age_text, seconds_since};
use crate::reaper::Finding;

/// What a table shows of a queue: id, key, user, pid, age, idle time, messages, bytes, verdict.
pub(super) fn cells(finding: &Finding, names: &mut Names) -> [String; 9] {
    let (status, verdict) = (&finding.status, finding.verdict);
    [
        finding.queue.id().to_string(),
        status.permissions.key.to_string(),
        names.of(status.permissions.cuid).to_owned(),
        finding.owner().map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        age_text(status.changed_at),
        age_text(finding.last_used()),
        status.messages.to_string(),
        status.bytes.to_string(),
        format!("{}: {verdict}", verdict.name()),
    ]
}

pub(super) fn json(finding: &Finding) -> Value {
    let mut object = queue_json(finding.queue, &finding.status);
    object["pid"] = json!(finding.owner().map(Pid::as_raw));
    object["age_seconds"] = json!(seconds_since(finding.status.changed_at));
    object["idle_seconds"] = json!(seconds_since(finding.last_used()));
    object["verdict"] = json!(finding.verdict.name());
    object["reason"] = json!(finding.verdict.to_string());
    object
}

pub(super) fn queue_json(queue: Queue, status: &QueueStatus) -> Value {
    json!({
        "id": queue.id().get(),
        "key": status.permissions.key.to_string(),
        "uid": status.permissions.uid.as_raw(),
        "cuid": status.permissions.cuid.as_raw(),
        "mode": status.permissions.mode.to_string(),
        "last_sender": status.last_sender.map(Pid::as_raw),
        "last_receiver": status.last_receiver.map(Pid::as_raw),
        "messages": status.messages,
        "bytes": status.bytes,
        "capacity": status.max_bytes,
    })
}
