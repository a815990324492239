//! The state of a key as JSON.

use serde_json::{Value, json};
use sysv_ipc::{Pid, Queue, QueueStatus};

use super::state::{KeyState, process_name};
use crate::cli::findings;
use crate::cli::table::utc;
use crate::counters::{BOUNDS, Snapshot};
use crate::ownership::server_state::ServerState;

/// Of the shape in docs/operations.md. New fields do not change it; any other change does.
const VERSION: u64 = 1;

pub(super) fn line(state: &KeyState) -> String {
    let object = json!({
        "version": VERSION,
        "time": utc(state.time),
        "key": state.key.to_string(),
        "queue": state.queue.map(|(queue, status)| request_queue(queue, &status)),
        "server": state.server.map(|server| match server {
            ServerState::Running => "running",
            ServerState::Dead => "dead",
            ServerState::NoLock => "unknown",
        }),
        "namespace": {
            "queues": state.usage.queues,
            "msgmni": state.limits.msgmni,
            "messages": state.usage.messages,
            "bytes": state.usage.bytes,
        },
        "counters": state.counters.as_deref().map(counters),
        "counters_are_current": state.counters_note.is_none(),
        "counters_note": state.counters_note,
        "rates": state.rates.map(|rates| named(rates.into_iter())),
        "reply_queues": state.reply_queues.as_ref().map(|all| {
            all.iter().map(findings::json).collect::<Vec<_>>()
        }),
    });
    format!("{object}\n")
}

fn request_queue(queue: Queue, status: &QueueStatus) -> Value {
    let mut object = findings::queue_json(queue, status);
    object["last_sender_name"] = json!(status.last_sender.and_then(process_name));
    object["last_receiver_name"] = json!(status.last_receiver.and_then(process_name));
    object["sent_at"] = json!(status.sent_at.map(utc));
    object["received_at"] = json!(status.received_at.map(utc));
    object["changed_at"] = json!(utc(status.changed_at));
    object
}

fn named<T: Into<Value>>(values: impl Iterator<Item = (&'static str, T)>) -> Value {
    values.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn counters(snapshot: &Snapshot) -> Value {
    let bounds = BOUNDS.into_iter().map(|bound| Some(bound.as_secs_f64())).chain([None]);
    let buckets = bounds.zip(snapshot.cumulative_transfers());
    let buckets = buckets.map(|(bound, count)| json!({ "le": bound, "count": count }));
    let mut object = json!({
        "queue": snapshot.queue.map(|queue| queue.get()),
        "server_pid": snapshot.server.map(Pid::as_raw),
        "since": utc(snapshot.started),
        "complete": snapshot.completed(),
        "failed": named(snapshot.failures().map(|(reason, count)| (reason.name(), count))),
        "refused": named(snapshot.refusals().map(|(reason, count)| (reason.name(), count))),
        "transfer_seconds_sum": snapshot.transfer_time.as_secs_f64(),
        "transfer_seconds": buckets.collect::<Vec<_>>(),
    });
    for number in snapshot.numbers() {
        object[number.name] = number.value.into();
    }
    object
}
