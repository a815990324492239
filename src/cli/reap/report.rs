//! What `mqfs-reap` prints of a queue: a row of a table, a JSON object, or a line of a log.

use std::time::SystemTime;

use crate::cli::findings::{self, cells};
use crate::cli::stdout;
use crate::cli::table::{Names, columns, utc};
use crate::reaper::{self, Action, Finding};

/// A queue, the verdict on it, and the action taken. None: an orphan is only shown.
pub(super) struct Row<'a> {
    pub(super) finding: &'a Finding,
    pub(super) action: Option<Action>,
}

impl<'a> Row<'a> {
    /// Removes the queue if it is an orphan, unless orphans are only shown.
    pub(super) fn carry_out(finding: &'a Finding, only_show: bool) -> Self {
        let action = match only_show && finding.verdict.is_orphan() {
            true if finding.is_removable() => None,
            true => Some(Action::NotPermitted),
            false => Some(reaper::remove(finding)),
        };
        Self { finding, action }
    }

    pub(super) fn action(&self) -> String {
        self.action.map_or_else(|| "would remove".to_owned(), |action| action.to_string())
    }

    /// A line of a log. Times are in UTC, as people compare logs of many machines.
    pub(super) fn line(&self, names: &mut Names) -> String {
        let [id, key, user, pid, _, idle, messages, bytes, _] = cells(self.finding, names);
        format!(
            "{} queue {id}: {}: {} (key {key}, user {user}, pid {pid}, {messages} messages, \
             {bytes} bytes, idle {idle})\n",
            utc(SystemTime::now()),
            self.action(),
            self.finding.verdict,
        )
    }

    /// A JSON object, which has the time if it is a line of a log.
    pub(super) fn json_line(&self, is_logged: bool) -> String {
        let mut object = findings::json(self.finding);
        object["action"] = self.action().into();
        if is_logged {
            object["time"] = utc(SystemTime::now()).into();
        }
        format!("{object}\n")
    }
}

pub(super) fn table(rows: &[Row<'_>]) -> String {
    const HEADER: [&str; 10] =
        ["ID", "KEY", "OWNER", "PID", "AGE", "IDLE", "MESSAGES", "BYTES", "VERDICT", "ACTION"];
    let mut names = Names::default();
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let [id, key, user, pid, age, idle, messages, bytes, verdict] =
            cells(row.finding, &mut names);
        [id, key, user, pid, age, idle, messages, bytes, verdict, row.action()]
    }));
    // On a narrow terminal, age, key, bytes, messages and pid give way to verdict and action.
    let shorten = [(4, 0), (1, 0), (7, 0), (6, 0), (8, 24), (2, 8), (3, 0), (8, 8), (5, 0)];
    columns(&lines, "  ", |column| matches!(column, 0 | 3..=7), stdout::width(), &shorten)
}
