//! The state of a key as JSON.

use serde_json::{Map, Value, json};
use sysv_ipc::{Pid, Queue, QueueStatus};

use super::rates::Rates;
use super::state::{KeyState, ServerCounters, process_name};
use crate::cli::findings;
use crate::cli::table::utc;
use crate::counters::{BOUNDS, Snapshot};
use crate::ownership::server_state::ServerState;

/// One object, on a line of its own.
pub(super) fn line(state: &KeyState, rates: Option<Rates<'_>>) -> String {
    let note = match &state.counters {
        ServerCounters::Current(_) => None,
        ServerCounters::Dead(_, why) => Some((*why).to_owned()),
        ServerCounters::Unavailable(why) => Some(why.clone()),
    };
    let snapshot = state.counters.snapshot();
    let rates = rates.zip(snapshot).map(|(rates, now)| {
        json!({
            "requests": rates.of(now, |counters| counters.requests),
            "questions": rates.of(now, |counters| counters.questions),
            "complete": rates.of(now, Snapshot::completed),
            "bytes_sent": rates.of(now, |counters| counters.bytes_sent),
            "clients_gone": rates.of(now, |counters| counters.clients_gone),
            "failed": rates.of(now, Snapshot::all_failures),
            "refused": rates.of(now, Snapshot::all_refusals),
        })
    });
    let object = json!({
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
        "counters": snapshot.map(counters),
        "counters_are_current": matches!(state.counters, ServerCounters::Current(_)),
        "counters_note": note,
        "rates": rates,
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

fn counters(snapshot: &Snapshot) -> Value {
    let named = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
        counts.map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, _>>()
    };
    let bounds = BOUNDS.into_iter().map(|bound| Some(bound.as_secs_f64())).chain([None]);
    let buckets =
        bounds.zip(snapshot.transfers).map(|(bound, count)| json!({ "le": bound, "count": count }));
    json!({
        "queue": snapshot.queue.map(|queue| queue.get()),
        "server_pid": snapshot.server.map(Pid::as_raw),
        "since": utc(snapshot.started),
        "requests": snapshot.requests,
        "questions": snapshot.questions,
        "complete": snapshot.completed(),
        "bytes_sent": snapshot.bytes_sent,
        "clients_gone": snapshot.clients_gone,
        "windows_failed": snapshot.windows_failed,
        "failed": named(&mut snapshot.failures().map(|(reason, count)| (reason.name(), count))),
        "refused": named(&mut snapshot.refusals().map(|(reason, count)| (reason.name(), count))),
        "children": snapshot.children,
        "children_peak": snapshot.children_peak,
        "children_hung": snapshot.hung_children,
        "sessions": snapshot.sessions,
        "sessions_idle": snapshot.idle_sessions,
        "children_limit": snapshot.children_limit,
        "transfer_seconds_sum": snapshot.transfer_time.as_secs_f64(),
        "transfer_seconds": buckets.collect::<Vec<_>>(),
    })
}
