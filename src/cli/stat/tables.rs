//! The state of a key as tables.

use std::time::SystemTime;

use indicatif::HumanBytes;
use sysv_ipc::{Permissions, Pid, Queue, QueueStatus};

use super::rates::Rates;
use super::state::{KeyState, ServerCounters, process_name};
use crate::cli::findings::cells;
use crate::cli::table::{Names, age_text, columns, seconds_since, utc};
use crate::counters::Snapshot;
use crate::ownership::server_state::ServerState;
use crate::reaper::Finding;

/// All tables, with a blank line between them.
pub(super) fn tables(state: &KeyState, rates: Option<Rates<'_>>) -> String {
    let mut names = Names::default();
    let mut tables = vec![request_queue(state, &mut names), namespace(state)];
    if let Some(findings) = &state.reply_queues {
        tables.push(counters(&state.counters, rates));
        tables.push(reply_queues(findings, &mut names));
    }
    tables.join("\n")
}

fn rows(rows: &[[String; 2]]) -> String {
    let rows: Vec<_> =
        rows.iter().map(|[label, value]| [format!("  {label}"), value.clone()]).collect();
    columns(&rows, "  ", |_| false)
}

fn row(label: &str, value: impl ToString) -> [String; 2] {
    [label.to_owned(), value.to_string()]
}

fn request_queue(state: &KeyState, names: &mut Names) -> String {
    let Some((queue, status)) = state.queue else {
        return format!("QUEUE {}: none\n", state.key);
    };
    let mut all = status_rows(queue, &status, names);
    if let Some(server) = state.server {
        let pid = status.last_receiver.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let server = match server {
            ServerState::Running => format!("running{pid}"),
            ServerState::Dead => "dead: nobody holds the server lock".to_owned(),
            ServerState::NoLock => "unknown: there is no server lock".to_owned(),
        };
        all.push(row("server", server));
    }
    format!("QUEUE {}\n{}", state.key, rows(&all))
}

fn status_rows(queue: Queue, status: &QueueStatus, names: &mut Names) -> Vec<[String; 2]> {
    let full = percent(status.bytes, status.max_bytes);
    let Permissions { uid, cuid, .. } = status.permissions;
    let mut owner = names.of(uid).to_owned();
    if uid != cuid {
        owner = format!("{owner}, made by {}", names.of(cuid));
    }
    vec![
        row("id", queue.id()),
        row("owner", owner),
        row("mode", status.permissions.mode),
        row("messages", status.messages),
        row("bytes", format!("{} of {} ({full} %)", status.bytes, status.max_bytes)),
        row("last sender", last(status.last_sender, status.sent_at)),
        row("last receiver", last(status.last_receiver, status.received_at)),
        row("changed", format!("{} ago", age_text(seconds_since(status.changed_at)))),
    ]
}

/// Who used the queue last, and when. A process in a foreign pid namespace has no pid here.
fn last(pid: Option<Pid>, at: Option<SystemTime>) -> String {
    let ago = |at| format!("{} ago", age_text(seconds_since(at)));
    match (pid, at) {
        (None, None) => "nobody yet".to_owned(),
        (None, Some(at)) => format!("a process of another pid namespace, {}", ago(at)),
        (Some(pid), at) => {
            let name = process_name(pid).unwrap_or_else(|| "ended".to_owned());
            format!("{pid} ({name}){}", at.map_or_else(String::new, |at| format!(", {}", ago(at))))
        }
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    (part as f64 * 100.0 / whole.max(1) as f64) as u64
}

fn namespace(state: &KeyState) -> String {
    let (used, limit) = (state.usage.queues, state.limits.msgmni);
    let full = percent(used as u64, limit as u64);
    let all = [
        row("queues", format!("{used} of {limit} ({full} %)")),
        row("messages", state.usage.messages),
        row("bytes", state.usage.bytes),
    ];
    format!("NAMESPACE\n{}", rows(&all))
}

fn counters(counters: &ServerCounters, rates: Option<Rates<'_>>) -> String {
    match counters {
        ServerCounters::Unavailable(why) => format!("COUNTERS: {why}\n"),
        ServerCounters::Dead(snapshot, why) => {
            format!("COUNTERS of a dead server ({why})\n{}", counts(snapshot, None))
        }
        ServerCounters::Current(snapshot) => format!("COUNTERS\n{}", counts(snapshot, rates)),
    }
}

fn counts(snapshot: &Snapshot, rates: Option<Rates<'_>>) -> String {
    let mut lines = vec![];
    let mut line = |label: &str, counter: &dyn Fn(&Snapshot) -> u64| {
        let rate = rates.map_or_else(String::new, |rates| match rates.of(snapshot, counter) {
            rate if label == "bytes sent" => format!("{}/s", HumanBytes(rate as u64)),
            rate => format!("{rate:.1}/s"),
        });
        lines.push([format!("  {label}"), counter(snapshot).to_string(), rate]);
    };
    line("requests", &|counters| counters.requests);
    line("questions", &|counters| counters.questions);
    line("complete", &Snapshot::completed);
    line("bytes sent", &|counters| counters.bytes_sent);
    line("clients gone", &|counters| counters.clients_gone);
    if snapshot.windows_failed > 0 {
        line("windows failed", &|counters| counters.windows_failed);
    }
    line("failed", &Snapshot::all_failures);
    for (index, (reason, _)) in snapshot.failures().enumerate().filter(|(_, (_, n))| *n > 0) {
        let count = |counters: &Snapshot| counters.failures().nth(index).map_or(0, |(_, n)| n);
        line(&format!("  {}", reason.name()), &count);
    }
    line("refused", &Snapshot::all_refusals);
    for (index, (reason, _)) in snapshot.refusals().enumerate().filter(|(_, (_, n))| *n > 0) {
        let count = |counters: &Snapshot| counters.refusals().nth(index).map_or(0, |(_, n)| n);
        line(&format!("  {}", reason.name()), &count);
    }
    let Snapshot { children, children_peak, children_limit, .. } = snapshot;
    let hung = match snapshot.hung_children {
        0 => String::new(),
        hung => format!(" ({hung} hung)"),
    };
    let children =
        format!("{children} now{hung}, {children_peak} at most, {children_limit} allowed");
    let pid = snapshot.server.map_or_else(String::new, |pid| format!(", by pid {pid}"));
    let mut rest = vec![
        row("children", children),
        row("sessions", format!("{} now, {} idle", snapshot.sessions, snapshot.idle_sessions)),
        row("counted since", format!("{}{pid}", utc(snapshot.started))),
    ];
    let within =
        |part| snapshot.within(part).map_or("longer".to_owned(), |time| format!("{time:?}"));
    if snapshot.transfers.into_iter().any(|count| count > 0) {
        let times = format!("half within {}, 99 % within {}", within(0.5), within(0.99));
        rest.push(row("answer time", times));
    }
    columns(&lines, "  ", |column| column > 0) + &rows(&rest)
}

fn reply_queues(findings: &[Finding], names: &mut Names) -> String {
    const HEADER: [&str; 9] =
        ["  ID", "OWNER", "PID", "AGE", "IDLE", "MESSAGES", "BYTES", "CAPACITY", "VERDICT"];
    let title = format!("REPLY QUEUES: {}\n", findings.len());
    if findings.is_empty() {
        return title;
    }
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(findings.iter().map(|finding| {
        let [id, _, user, pid, age, idle, messages, bytes, verdict] = cells(finding, names);
        let capacity = finding.status.max_bytes.to_string();
        [format!("  {id}"), user, pid, age, idle, messages, bytes, capacity, verdict]
    }));
    title + &columns(&lines, "  ", |column| matches!(column, 0 | 2..=7))
}
