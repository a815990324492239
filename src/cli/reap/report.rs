//! What is printed of a queue: a row of a table, an object, or a line.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::table::{Names, age_text, columns, now, seconds_since};
use crate::reaper::{self, Action, Finding};
use crate::wire::is_request_queue_mode;

/// A queue, what was found of it, and what was done; None where an orphan was only to be shown.
pub(super) struct Row<'a> {
    pub(super) finding: &'a Finding,
    pub(super) action: Option<Action>,
}

impl<'a> Row<'a> {
    /// Removes the queue if it is an orphan, and is not only to be shown.
    pub(super) fn carry_out(finding: &'a Finding, only_show: bool) -> Self {
        let only_show = only_show && finding.verdict.is_orphan();
        Self { finding, action: (!only_show).then(|| reaper::remove(finding)) }
    }

    pub(super) fn action(&self) -> String {
        self.action.map_or_else(|| "would remove".to_owned(), |action| action.to_string())
    }

    /// The pid in its lease, or of a request queue who received last, which is a server.
    fn pid(&self) -> Option<i32> {
        let status = &self.finding.status;
        let is_request_queue =
            !status.permissions.key.is_private() && is_request_queue_mode(status.permissions.mode);
        let server = status.last_receiver.filter(|_| is_request_queue).map(|pid| pid.as_raw());
        self.finding.owner.map(|owner| owner.pid).or(server)
    }

    fn pid_text(&self) -> String {
        self.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string())
    }

    /// Seconds since it was made or changed.
    fn age(&self) -> u64 {
        seconds_since(self.finding.status.changed_at)
    }

    /// Seconds since it was made, changed, sent to or received from.
    fn idle(&self) -> u64 {
        seconds_since(self.finding.last_used())
    }

    /// A line of a log. Times in UTC, as people compare logs of many machines.
    pub(super) fn line(&self, names: &mut Names) -> String {
        let status = &self.finding.status;
        format!(
            "{} queue {}: {}: {} (key {}, user {}, pid {}, {} messages, {} bytes, idle {})\n",
            now(),
            self.finding.queue.id(),
            self.action(),
            self.finding.verdict,
            status.permissions.key,
            names.of(status.permissions.cuid),
            self.pid_text(),
            status.messages,
            status.bytes,
            age_text(self.idle()),
        )
    }

    pub(super) fn json(&self) -> Value {
        let status = &self.finding.status;
        json!({
            "id": self.finding.queue.id().get(),
            "key": status.permissions.key.to_string(),
            "uid": status.permissions.uid.as_raw(),
            "cuid": status.permissions.cuid.as_raw(),
            "mode": status.permissions.mode.to_string(),
            "pid": self.pid(),
            "last_sender": status.last_sender.map(|pid| pid.as_raw()),
            "last_receiver": status.last_receiver.map(|pid| pid.as_raw()),
            "age_seconds": self.age(),
            "idle_seconds": self.idle(),
            "messages": status.messages,
            "bytes": status.bytes,
            "verdict": self.finding.verdict.name(),
            "reason": self.finding.verdict.to_string(),
            "action": self.action(),
        })
    }

    /// The object of a log, which tells when.
    pub(super) fn json_line(&self) -> String {
        let mut object = self.json();
        object["time"] = now().into();
        format!("{object}\n")
    }
}

pub(super) fn json_lines(rows: &[Row<'_>]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        let _ = writeln!(text, "{}", row.json());
        text
    })
}

const HEADER: [&str; 10] =
    ["ID", "KEY", "OWNER", "PID", "AGE", "IDLE", "MESSAGES", "BYTES", "VERDICT", "ACTION"];

pub(super) fn table(rows: &[Row<'_>]) -> String {
    let mut names = Names::default();
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let status = &row.finding.status;
        let verdict = row.finding.verdict;
        [
            row.finding.queue.id().to_string(),
            status.permissions.key.to_string(),
            names.of(status.permissions.cuid).to_owned(),
            row.pid_text(),
            age_text(row.age()),
            age_text(row.idle()),
            status.messages.to_string(),
            status.bytes.to_string(),
            format!("{}: {verdict}", verdict.name()),
            row.action(),
        ]
    }));
    columns(&lines, |column| matches!(column, 0 | 3..=7))
}
