//! What was seen, as tables.

use std::time::{Duration, SystemTime};

use sysv_ipc::Pid;

use super::look::{Figures, Look, name_of};
use super::rates::Since;
use crate::cli::findings::{Cells, cells};
use crate::cli::table::{Names, age_text, columns, seconds_since, utc};
use crate::counters::{BOUNDS, Snapshot};
use crate::ownership::server_lock::ServerState;
use crate::reaper::Finding;
use sysv_ipc::{Queue, QueueStatus};

/// All of it, a blank line between the parts.
pub(super) fn tables(look: &Look, since: Option<Since<'_>>) -> String {
    let mut names = Names::default();
    let mut parts = vec![request_queue(look, &mut names), namespace(look)];
    if let Some(findings) = &look.reply_queues {
        parts.push(counters(&look.figures, since));
        parts.push(reply_queues(findings, &mut names));
    }
    parts.join("\n")
}

fn rows(rows: &[[String; 2]]) -> String {
    let rows: Vec<_> =
        rows.iter().map(|[label, value]| [format!("  {label}"), value.clone()]).collect();
    columns(&rows, "  ", |_| false)
}

fn row(label: &str, value: impl ToString) -> [String; 2] {
    [label.to_owned(), value.to_string()]
}

fn request_queue(look: &Look, names: &mut Names) -> String {
    let Some((queue, status)) = look.queue else {
        return format!("QUEUE {}: none\n", look.key);
    };
    let mut all = kernels_word(queue, &status, names);
    if let Some(server) = look.server {
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
    format!("QUEUE {}\n{}", look.key, rows(&all))
}

fn kernels_word(queue: Queue, status: &QueueStatus, names: &mut Names) -> Vec<[String; 2]> {
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

/// Who did it, and when. The kernel knows no pid of a process that this pid namespace cannot see.
fn last(pid: Option<Pid>, at: Option<SystemTime>) -> String {
    let ago = |at| format!("{} ago", age_text(seconds_since(at)));
    match (pid, at) {
        (None, None) => "nobody yet".to_owned(),
        (None, Some(at)) => format!("a process that cannot be seen from here, {}", ago(at)),
        (Some(pid), at) => {
            let name = name_of(pid).unwrap_or_else(|| "ended".to_owned());
            format!("{pid} ({name}){}", at.map_or_else(String::new, |at| format!(", {}", ago(at))))
        }
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

fn namespace(look: &Look) -> String {
    let (used, limit) = (look.usage.queues, look.limits.msgmni);
    let full = percent(used as u64, limit as u64);
    let all = [
        row("queues", format!("{used} of {limit} ({full} %)")),
        row("messages", look.usage.messages),
        row("bytes", look.usage.bytes),
    ];
    format!("NAMESPACE\n{}", rows(&all))
}

fn counters(figures: &Figures, since: Option<Since<'_>>) -> String {
    match figures {
        Figures::None(why) => format!("COUNTERS: {why}\n"),
        Figures::Dead(snapshot, why) => {
            format!("COUNTERS of a dead server ({why})\n{}", counts(snapshot, None))
        }
        Figures::Current(snapshot) => format!("COUNTERS\n{}", counts(snapshot, since)),
    }
}

fn counts(figures: &Snapshot, since: Option<Since<'_>>) -> String {
    let mut lines = vec![];
    let mut line = |label: &str, count: &dyn Fn(&Snapshot) -> u64| {
        let rate = since.map_or_else(String::new, |since| {
            format!("{}/s", rate_text(since.rate(figures, count)))
        });
        lines.push([format!("  {label}"), count(figures).to_string(), rate]);
    };
    line("requests", &|f| f.requests);
    line("complete", &Snapshot::completed);
    line("bytes sent", &|f| f.bytes);
    line("clients gone", &|f| f.clients_gone);
    line("failed", &Snapshot::all_failures);
    for (reason, count) in figures.failures().filter(|(_, count)| *count > 0) {
        line(&format!("  {}", reason.name()), &|f| {
            f.failures().find(|(other, _)| *other == reason).map_or(count, |(_, count)| count)
        });
    }
    line("refused", &Snapshot::all_refused);
    for (reason, count) in figures.refused().filter(|(_, count)| *count > 0) {
        line(&format!("  {}", reason.name()), &|f| {
            f.refused().find(|(other, _)| *other == reason).map_or(count, |(_, count)| count)
        });
    }
    let mut text = columns(&lines, "  ", |column| column > 0);
    let (now, most) = (figures.children, figures.most_children);
    let children = format!("{now} now, {most} at most, {} allowed", figures.most_allowed);
    let pid = figures.server.map_or_else(String::new, |pid| format!(", by pid {pid}"));
    let mut all = vec![row("children", children)];
    all.push(row("counted since", format!("{}{pid}", utc(figures.started))));
    all.extend(transfer_times(figures));
    text.push_str(&rows(&all));
    text
}

/// How long transfers took: a bar for each bound that any of them needed.
fn transfer_times(figures: &Snapshot) -> Vec<[String; 2]> {
    const LONGEST_BAR: u64 = 40;
    let Some(most) = figures.times.into_iter().max().filter(|most| *most > 0) else {
        return vec![];
    };
    let within = |part| match figures.within(part) {
        Some(bound) => bound_text(bound),
        None => "longer".to_owned(),
    };
    let summary = format!("half within {}, 99 % within {}", within(0.5), within(0.99));
    let mut all = vec![row("transfer time", summary)];
    for (place, count) in figures.times.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let label = match BOUNDS.get(place) {
            Some(bound) => format!("  up to {}", bound_text(*bound)),
            None => "  longer".to_owned(),
        };
        let length = (u128::from(count) * u128::from(LONGEST_BAR)).div_ceil(most.into());
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        all.push([label, format!("{bar} {count}")]);
    }
    all
}

/// `250us`, `2.5ms`, `10s`.
fn bound_text(bound: Duration) -> String {
    match bound.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{}us", bound.as_micros()),
        seconds if seconds < 1.0 => format!("{}ms", bound.as_micros() as f64 / 1e3),
        seconds => format!("{seconds}s"),
    }
}

/// Three digits that matter.
pub(super) fn rate_text(rate: f64) -> String {
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
