//! The state of a key as tables.

use std::time::{Duration, SystemTime};

use sysv_ipc::{Pid, Queue, QueueStatus};

use super::rates::Rates;
use super::state::{KeyState, ServerCounters, process_name};
use crate::cli::findings::{Cells, cells};
use crate::cli::table::{Names, age_text, columns, seconds_since, utc};
use crate::counters::{BOUNDS, Snapshot};
use crate::ownership::server_lock::ServerState;
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
        all.push(row(
            "server",
            match server {
                ServerState::Running => format!("running{pid}"),
                ServerState::Dead => "dead: nobody holds the server lock".to_owned(),
                ServerState::NoLock => "unknown: there is no server lock".to_owned(),
            },
        ));
    }
    format!("QUEUE {}\n{}", state.key, rows(&all))
}

fn status_rows(queue: Queue, status: &QueueStatus, names: &mut Names) -> Vec<[String; 2]> {
    let full = percent(status.bytes, status.max_bytes);
    let owner = if status.permissions.uid == status.permissions.cuid {
        names.of(status.permissions.uid).to_owned()
    } else {
        format!(
            "{}, made by {}",
            names.of(status.permissions.uid).to_owned(),
            names.of(status.permissions.cuid)
        )
    };
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
        (None, Some(at)) => format!("a process that cannot be seen from here, {}", ago(at)),
        (Some(pid), at) => {
            let name = process_name(pid).unwrap_or_else(|| "ended".to_owned());
            format!("{pid} ({name}){}", at.map_or_else(String::new, |at| format!(", {}", ago(at))))
        }
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
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
        let rate = rates.map_or_else(String::new, |rates| {
            format!("{}/s", rate_text(rates.of(snapshot, counter)))
        });
        lines.push([format!("  {label}"), counter(snapshot).to_string(), rate]);
    };
    line("requests", &|counters| counters.requests);
    line("complete", &Snapshot::completed);
    line("bytes sent", &|counters| counters.bytes_sent);
    line("clients gone", &|counters| counters.clients_gone);
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
    let pid = snapshot.server.map_or_else(String::new, |pid| format!(", by pid {pid}"));
    let mut rest = vec![
        row(
            "children",
            format!("{children} now, {children_peak} at most, {children_limit} allowed"),
        ),
        row("counted since", format!("{}{pid}", utc(snapshot.started))),
    ];
    rest.extend(transfer_times(snapshot));
    columns(&lines, "  ", |column| column > 0) + &rows(&rest)
}

/// How long transfers took: a summary, and a bar for each bucket that is not empty.
fn transfer_times(snapshot: &Snapshot) -> Vec<[String; 2]> {
    const LONGEST_BAR: u64 = 40;
    let Some(most) = snapshot.transfers.into_iter().max().filter(|most| *most > 0) else {
        return vec![];
    };
    let within = |part| match snapshot.within(part) {
        Some(bound) => bound_text(bound),
        None => "longer".to_owned(),
    };
    let summary = format!("half within {}, 99 % within {}", within(0.5), within(0.99));
    let mut rows = vec![row("transfer time", summary)];
    for (bucket, count) in snapshot.transfers.into_iter().enumerate().filter(|(_, n)| *n > 0) {
        let label = match BOUNDS.get(bucket) {
            Some(bound) => format!("  up to {}", bound_text(*bound)),
            None => "  longer".to_owned(),
        };
        let length = (u128::from(count) * u128::from(LONGEST_BAR)).div_ceil(most.into());
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        rows.push([label, format!("{bar} {count}")]);
    }
    rows
}

/// `250us`, `2.5ms`, `10s`.
fn bound_text(bound: Duration) -> String {
    match bound.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{}us", bound.as_micros()),
        seconds if seconds < 1.0 => format!("{}ms", bound.as_micros() as f64 / 1e3),
        seconds => format!("{seconds}s"),
    }
}

/// With a unit and about three significant digits.
fn rate_text(rate: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = UNITS.into_iter().find(|(size, _)| rate >= *size);
    match unit {
        Some((size, letter)) => format!("{:.1}{letter}", rate / size),
        None if rate >= 100.0 || rate == 0.0 => format!("{rate:.0}"),
        None => format!("{rate:.1}"),
    }
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
        let Cells { id, user, pid, age, idle, messages, bytes, capacity, verdict, .. } =
            cells(finding, names);
        [format!("  {id}"), user, pid, age, idle, messages, bytes, capacity, verdict]
    }));
    title + &columns(&lines, "  ", |column| matches!(column, 0 | 2..=7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_digits_that_matter() {
        for (rate, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (99.94, "99.9"),
            (100.4, "100"),
            (9_999.0, "10.0k"),
            (12_345.0, "12.3k"),
            (1e9, "1.0G"),
            (2.5e10, "25.0G"),
        ] {
            assert_eq!(rate_text(rate), text);
        }
        let bounds = BOUNDS.map(bound_text).join(" ");
        assert!(bounds.starts_with("100us 250us 500us 1ms 2.5ms 5ms "), "{bounds}");
        assert!(bounds.ends_with(" 500ms 1s 2.5s 5s 10s 25s 50s 100s 250s"), "{bounds}");
        assert_eq!((percent(1, 0), percent(u64::MAX, 1)), (100, u64::MAX));
    }
}
