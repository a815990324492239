//! The state of a key as tables.

use std::time::SystemTime;

use console::truncate_str;
use indicatif::HumanBytes;
use sysv_ipc::{Permissions, Pid, Queue, QueueStatus};

use super::state::{KeyState, Rates, growing, process_name};
use crate::cli::findings::cells;
use crate::cli::stdout;
use crate::cli::table::{Names, age_text, columns, utc};
use crate::counters::Snapshot;
use crate::ownership::server_state::ServerState;
use crate::reaper::Finding;

/// All tables, with a blank line between them. What moves stands at the top, for small screens.
pub(super) fn tables(state: &KeyState) -> String {
    let mut names = Names::default();
    let mut tables = vec![title(state)];
    if let Some(findings) = &state.reply_queues {
        tables.push(counters(state));
        tables.push(reply_queues(findings, &mut names));
    }
    tables.extend(state.queue.map(|(queue, status)| details(queue, &status, &mut names)));
    tables.push(namespace(state));
    tables.join("\n")
}

fn rows(rows: &[[String; 2]]) -> String {
    columns(rows, "  ", |_| false, stdout::width(), &[])
}

fn row(label: &str, value: impl ToString) -> [String; 2] {
    [format!("  {label}"), value.to_string()]
}

fn title(state: &KeyState) -> String {
    let Some((_, status)) = state.queue else {
        return format!("QUEUE: none {}\n", state.target);
    };
    let QueueStatus { messages, bytes, max_bytes, .. } = status;
    let full = percent(bytes, max_bytes);
    let server = match (state.server, status.last_receiver) {
        (None, _) => String::new(),
        (Some(ServerState::Running), Some(pid)) => format!(", server running, pid {pid}"),
        (Some(ServerState::Running), None) => ", server running".to_owned(),
        (Some(ServerState::Dead), _) => ", server dead: nobody holds the server lock".to_owned(),
        (Some(ServerState::NoLock), _) => ", server unknown: there is no server lock".to_owned(),
    };
    let key = state.key;
    let title = format!("QUEUE {key}{server}");
    let title = truncate_str(&title, stdout::width(), "…");
    let bytes = row("bytes", format!("{bytes} of {max_bytes} ({full} %)"));
    format!("{title}\n{}", rows(&[row("messages", messages), bytes]))
}

fn details(queue: Queue, status: &QueueStatus, names: &mut Names) -> String {
    let Permissions { uid, cuid, mode, .. } = status.permissions;
    let mut owner = names.of(uid).to_owned();
    if uid != cuid {
        owner = format!("{owner}, made by {}", names.of(cuid));
    }
    let details = rows(&[
        row("id", queue.id()),
        row("owner", owner),
        row("mode", mode),
        row("last sender", last(status.last_sender, status.sent_at)),
        row("last receiver", last(status.last_receiver, status.received_at)),
        row("changed", format!("{} ago", age_text(status.changed_at))),
    ]);
    format!("THE QUEUE\n{details}")
}

/// Who used the queue last, and when. A process in a foreign pid namespace has no pid here.
fn last(pid: Option<Pid>, at: Option<SystemTime>) -> String {
    let ago = |at| format!("{} ago", age_text(at));
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

fn counters(state: &KeyState) -> String {
    match (&state.counters, &state.counters_note) {
        (None, why) => format!("COUNTERS: {}\n", why.as_deref().unwrap_or_default()),
        (Some(snapshot), Some(why)) => {
            format!("COUNTERS of a dead server ({why})\n{}", counts(snapshot, None))
        }
        (Some(snapshot), None) => format!("COUNTERS\n{}", counts(snapshot, state.rates)),
    }
}

fn counts(snapshot: &Snapshot, rates: Option<Rates>) -> String {
    let mut lines = vec![];
    for (index, (name, count)) in growing(snapshot).into_iter().enumerate() {
        let rate = rates.map(|rates| rates[index].1).map_or(String::new(), |rate| match name {
            "bytes_sent" => format!("{}/s", HumanBytes(rate as u64)),
            _ => format!("{rate:.1}/s"),
        });
        lines.push([format!("  {}", name.replace('_', " ")), count.to_string(), rate]);
        let reasons: Vec<_> = match name {
            "failed" => snapshot.failures().map(|(why, count)| (why.name(), count)).collect(),
            "refused" => snapshot.refusals().map(|(why, count)| (why.name(), count)).collect(),
            _ => vec![],
        };
        let reasons = reasons.into_iter().filter(|(_, count)| *count > 0);
        lines.extend(reasons.map(|(why, n)| [format!("    {why}"), n.to_string(), String::new()]));
    }
    let Snapshot { children, children_peak, children_limit, .. } = snapshot;
    let hung = match snapshot.children_hung {
        0 => String::new(),
        hung => format!(" ({hung} hung)"),
    };
    let children =
        format!("{children} now{hung}, {children_peak} at most, {children_limit} allowed");
    let pid = snapshot.server.map_or_else(String::new, |pid| format!(", by pid {pid}"));
    let mut rest = vec![
        row("children", children),
        row("sessions", format!("{} now, {} idle", snapshot.sessions, snapshot.sessions_idle)),
        row("counted since", format!("{}{pid}", utc(snapshot.started))),
    ];
    let within =
        |part| snapshot.within(part).map_or("longer".to_owned(), |time| format!("{time:?}"));
    if snapshot.transfers.into_iter().any(|count| count > 0) {
        let times = format!("half within {}, 99 % within {}", within(0.5), within(0.99));
        rest.push(row("answer time", times));
    }
    columns(&lines, "  ", |column| column > 0, stdout::width(), &[]) + &rows(&rest)
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
    // On a narrow terminal, capacity, age, bytes and messages give way to the verdict.
    let shorten = [(7, 0), (3, 0), (8, 24), (6, 0), (1, 8), (5, 0), (8, 8), (2, 0)];
    title + &columns(&lines, "  ", |column| matches!(column, 0 | 2..=7), stdout::width(), &shorten)
}
