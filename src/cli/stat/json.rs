//! The state of a key as JSON.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use sysv_ipc::{Pid, Queue, QueueStatus};

use super::rates::Rates;
use super::state::{KeyState, ServerCounters, process_name};
use crate::cli::findings;
use crate::cli::table::utc;
use crate::counters::{BOUNDS, Snapshot};
use crate::ownership::server_lock::ServerState;

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

fn pid(pid: Option<Pid>) -> Option<i32> {
    pid.map(Pid::as_raw)
}

fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(utc)
}

fn request_queue(queue: Queue, status: &QueueStatus) -> Value {
    json!({
        "id": queue.id().get(),
        "uid": status.permissions.uid.as_raw(),
        "cuid": status.permissions.cuid.as_raw(),
        "mode": status.permissions.mode.to_string(),
        "messages": status.messages,
        "bytes": status.bytes,
        "capacity": status.max_bytes,
        "last_sender": pid(status.last_sender),
        "last_sender_name": status.last_sender.and_then(process_name),
        "last_receiver": pid(status.last_receiver),
        "last_receiver_name": status.last_receiver.and_then(process_name),
        "sent_at": time(status.sent_at),
        "received_at": time(status.received_at),
        "changed_at": utc(status.changed_at),
    })
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
        "server_pid": pid(snapshot.server),
        "since": utc(snapshot.started),
        "requests": snapshot.requests,
        "complete": snapshot.completed(),
        "bytes_sent": snapshot.bytes_sent,
        "clients_gone": snapshot.clients_gone,
        "failed": named(&mut snapshot.failures().map(|(reason, count)| (reason.name(), count))),
        "refused": named(&mut snapshot.refusals().map(|(reason, count)| (reason.name(), count))),
        "children": snapshot.children,
        "children_peak": snapshot.children_peak,
        "children_limit": snapshot.children_limit,
        "transfer_seconds_sum": snapshot.transfer_time.as_secs_f64(),
        "transfer_seconds": buckets.collect::<Vec<_>>(),
    })
}
