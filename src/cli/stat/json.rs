//! What was seen, as an object.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use sysv_ipc::Pid;

use super::look::{Figures, Look, name_of};
use super::rates::Since;
use crate::cli::findings;
use crate::cli::table::utc;
use crate::counters::{BOUNDS, Snapshot};
use crate::ownership::server_lock::ServerState;
use sysv_ipc::{Queue, QueueStatus};

/// The object, on a line of its own.
pub(super) fn line(look: &Look, since: Option<Since<'_>>) -> String {
    let (figures, note) = match &look.figures {
        Figures::Current(figures) => (Some(figures), None),
        Figures::Dead(figures, why) => (Some(figures), Some((*why).to_owned())),
        Figures::None(why) => (None, Some(why.clone())),
    };
    let rates = since.zip(figures).map(|(since, figures)| {
        json!({
            "requests": since.rate(figures, |f| f.requests),
            "complete": since.rate(figures, Snapshot::completed),
            "bytes_sent": since.rate(figures, |f| f.bytes),
            "clients_gone": since.rate(figures, |f| f.clients_gone),
            "failed": since.rate(figures, Snapshot::all_failures),
            "refused": since.rate(figures, Snapshot::all_refused),
        })
    });
    let object = json!({
        "time": utc(look.time),
        "key": look.key.to_string(),
        "queue": look.queue.map(|(queue, status)| request_queue(queue, &status)),
        "server": look.server.map(|server| match server {
            ServerState::Running => "running",
            ServerState::Dead => "dead",
            ServerState::NoLock => "unknown",
        }),
        "namespace": {
            "queues": look.usage.queues,
            "msgmni": look.limits.msgmni,
            "messages": look.usage.messages,
            "bytes": look.usage.bytes,
        },
        "counters": figures.map(|figures| counters(figures)),
        "counters_are_current": matches!(look.figures, Figures::Current(_)),
        "counters_note": note,
        "rates": rates,
        "reply_queues": look.reply_queues.as_ref().map(|all| {
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
        "last_sender_name": status.last_sender.and_then(name_of),
        "last_receiver": pid(status.last_receiver),
        "last_receiver_name": status.last_receiver.and_then(name_of),
        "sent_at": time(status.sent_at),
        "received_at": time(status.received_at),
        "changed_at": utc(status.changed_at),
    })
}

fn counters(figures: &Snapshot) -> Value {
    let named = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
        counts.map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, _>>()
    };
    let bounds = BOUNDS.into_iter().map(|bound| Some(bound.as_secs_f64())).chain([None]);
    let times =
        bounds.zip(figures.times).map(|(bound, count)| json!({ "le": bound, "count": count }));
    json!({
        "queue": figures.queue.map(|queue| queue.get()),
        "server_pid": pid(figures.server),
        "since": utc(figures.started),
        "requests": figures.requests,
        "complete": figures.completed(),
        "bytes_sent": figures.bytes,
        "clients_gone": figures.clients_gone,
        "failed": named(&mut figures.failures().map(|(reason, count)| (reason.name(), count))),
        "refused": named(&mut figures.refused().map(|(reason, count)| (reason.name(), count))),
        "children": figures.children,
        "children_peak": figures.most_children,
        "children_limit": figures.most_allowed,
        "transfer_seconds_sum": figures.time.as_secs_f64(),
        "transfer_seconds": times.collect::<Vec<_>>(),
    })
}
