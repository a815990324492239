//! `mqfs-reap`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Parser;
use nix::unistd::{Uid, User};

use super::{FAILED, NOBODY_READS};
use crate::reaper::{self, Action, Finding};
use crate::wire::is_request_queue_mode;

const PROGRAM: &str = "mqfs-reap";

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 a queue could not be removed; 2 invalid input or an unavailable IPC resource;
141 nobody reads the output any more.";

/// Remove the message queues of dead processes
///
/// Judges every queue of the IPC namespace and removes those that mqfs clients and servers left
/// behind. A queue whose owner may live is never touched, nor is one that mqfs did not make.
#[derive(Debug, Parser)]
#[command(name = "mqfs-reap", version, after_help = EXIT_STATUS)]
struct Opts {
    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print an object to a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the program.
pub fn main() -> ExitCode {
    super::exit(PROGRAM, run(&super::parse(PROGRAM)))
}

fn run(opts: &Opts) -> Result<ExitCode> {
    let findings = reaper::survey()?;
    let rows: Vec<_> = findings.iter().map(|finding| Row::carry_out(finding, opts)).collect();
    let text = if opts.json { json(&rows) } else { table(&rows) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(ExitCode::from(NOBODY_READS));
        }
        written => written.context("standard output")?,
    }
    let failed = rows.iter().any(|row| matches!(row.action, Some(Action::Failed(_))));
    Ok(ExitCode::from(if failed { FAILED } else { 0 }))
}

/// A queue, what was found of it, and what was done; None where an orphan was only to be shown.
struct Row<'a> {
    finding: &'a Finding,
    action: Option<Action>,
}

impl<'a> Row<'a> {
    fn carry_out(finding: &'a Finding, opts: &Opts) -> Self {
        let only_show = opts.dry_run && finding.verdict.is_orphan();
        Self { finding, action: (!only_show).then(|| reaper::remove(finding)) }
    }

    fn action(&self) -> String {
        self.action.map_or_else(|| "would remove".to_owned(), |action| action.to_string())
    }

    /// The pid in its lease, or of a request queue who received last, which is a server.
    fn pid(&self) -> Option<i32> {
        let status = &self.finding.status;
        let is_request_queue = !status.key.is_private() && is_request_queue_mode(status.mode);
        let server = status.last_receiver.filter(|_| is_request_queue).map(|pid| pid.as_raw());
        self.finding.owner.map(|owner| owner.pid).or(server)
    }

    /// Seconds since it was made or changed; 0 if the clock was set back since.
    fn age(&self) -> u64 {
        let changed_at = self.finding.status.changed_at;
        SystemTime::now().duration_since(changed_at).unwrap_or_default().as_secs()
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let header = ["ID", "KEY", "OWNER", "PID", "AGE", "MESSAGES", "BYTES", "VERDICT", "ACTION"];
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let status = &row.finding.status;
        let verdict = row.finding.verdict;
        [
            row.finding.queue.id().to_string(),
            status.key.to_string(),
            user_name(status.cuid),
            row.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            age_text(row.age()),
            status.messages.to_string(),
            status.bytes.to_string(),
            format!("{}: {verdict}", verdict.name()),
            row.action(),
        ]
    }));
    let mut widths = [0; 9];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let numeric = matches!(column, 0 | 3..=6);
            let _ = if numeric {
                write!(row, "{cell:>width$}  ")
            } else {
                write!(row, "{cell:<width$}  ")
            };
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

/// The largest unit that leaves at least two of it, as people say ages.
fn age_text(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn user_name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn json(rows: &[Row<'_>]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        let status = &row.finding.status;
        let object = serde_json::json!({
            "id": row.finding.queue.id().get(),
            "key": status.key.to_string(),
            "uid": status.uid.as_raw(),
            "cuid": status.cuid.as_raw(),
            "mode": status.mode.to_string(),
            "pid": row.pid(),
            "last_sender": status.last_sender.map(|pid| pid.as_raw()),
            "last_receiver": status.last_receiver.map(|pid| pid.as_raw()),
            "age_seconds": row.age(),
            "messages": status.messages,
            "bytes": status.bytes,
            "verdict": row.finding.verdict.name(),
            "reason": row.finding.verdict.to_string(),
            "action": row.action(),
        });
        let _ = writeln!(text, "{object}");
        text
    })
}
