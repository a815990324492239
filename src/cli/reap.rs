mod report;

use std::collections::HashMap;
use std::mem;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueHint};
use sysv_ipc::Uid;

use self::report::Row;
use super::table::Names;
use super::{FAILED, complain, duration, interval, signals, stdout, user};
use crate::reaper::{Action, Policy};
use crate::sys;

const PROGRAM: &str = "mqfs-reap";

const EXIT_STATUS: &str = "\
Exit status: 0 done, or stopped by a signal (--watch); 1 a queue could not be removed, there are \
orphans (--check), or the output failed; 2 invalid input or an unavailable IPC resource; 141 \
nobody reads the output any more. An orphan that is not yours to remove is no failure.";

const WHICH: &str = "Which queues";

/// Remove the message queues of dead processes
///
/// Judges every queue of the IPC namespace and removes those that dead mqfs clients and servers
/// left behind. It never touches a queue whose owner may be alive or, without --foreign, a queue of
/// another program. Only root can judge the queues of all users. The locks, the counters and the
/// shared memory that killed servers and their children left are removed, too.
#[derive(Debug, Parser)]
#[command(name = "mqfs-reap", version, after_help = EXIT_STATUS, args_override_self = true)]
#[command(next_help_heading = "What to do and to show")]
pub(super) struct Opts {
    /// Keep orphans that were made, changed or used within this time [default: none; with --foreign
    /// 1h for queues of other programs]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = WHICH)]
    older_than: Option<Duration>,
    /// Look only at queues that this user made: a name or a uid
    #[arg(long, value_name = "UID", value_parser = user, value_hint = ValueHint::Username)]
    #[arg(help_heading = WHICH)]
    uid: Option<Uid>,
    /// Include queues of other programs: those without a key that no other user may use, whose last
    /// sender and last receiver are both dead
    #[arg(long, help_heading = WHICH)]
    foreign: bool,
    /// Remove nothing, only show what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// For monitoring: remove nothing, print only orphans that you may remove, exit with 1 if there
    /// are any
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    /// Print JSON, one object to a line, instead of a table
    #[arg(long)]
    json: bool,
    /// Repeat every TIME until a signal; print a line for each queue removed
    #[arg(long, value_name = "TIME", value_parser = interval)]
    watch: Option<Duration>,
}

impl Opts {
    fn policy(&self) -> Policy {
        Policy::new().older_than(self.older_than).uid(self.uid).foreign(self.foreign)
    }
}

pub fn main() -> ExitCode {
    super::exit_status(PROGRAM, false, run(&super::parse(PROGRAM))).into()
}

fn run(opts: &Opts) -> Result<u8> {
    if let Some(every) = opts.watch {
        return watch(opts, every);
    }
    let mut findings = opts.policy().survey()?;
    if opts.check {
        findings.retain(|finding| finding.verdict.is_orphan() && finding.is_removable());
    }
    let only_show = opts.dry_run || opts.check;
    let rows: Vec<_> = findings.iter().map(|found| Row::carry_out(found, only_show)).collect();
    // cron(8) mails every output, so --check prints nothing while all is well.
    let alarm = opts.check && !rows.is_empty();
    if alarm || !opts.check {
        stdout::print(&match opts.json {
            true => rows.iter().map(|row| row.json_line(false)).collect(),
            false => report::table(&rows),
        })?;
    }
    if !only_show {
        remove_leftovers(&opts.policy())?;
    }
    let failed = rows.iter().any(|row| matches!(row.action, Some(Action::Failed(_))));
    Ok(if failed || alarm { FAILED } else { 0 })
}

/// Removes orphans again and again, and prints a line for each.
fn watch(opts: &Opts, every: Duration) -> Result<u8> {
    stdout::print("")?;
    signals::handle(|| sys::exit_now(0))?;
    let (policy, mut names) = (opts.policy(), Names::default());
    // What was printed about orphans that still exist, so that it is not printed again.
    let mut printed = HashMap::new();
    loop {
        match policy.survey() {
            Ok(findings) => {
                let before = mem::take(&mut printed);
                let orphans = findings.iter().filter(|finding| finding.verdict.is_orphan());
                for row in orphans.map(|orphan| Row::carry_out(orphan, opts.dry_run)) {
                    if matches!(row.action, Some(Action::Changed | Action::Kept)) {
                        continue;
                    }
                    let id = row.finding.queue.id();
                    let what = (row.finding.status.changed_at, row.action());
                    if before.get(&id) != Some(&what) {
                        let line =
                            if opts.json { row.json_line(true) } else { row.line(&mut names) };
                        stdout::print_or_complain(PROGRAM, &line)?;
                    }
                    if row.action != Some(Action::Removed) {
                        printed.insert(id, what);
                    }
                }
                if !opts.dry_run {
                    remove_leftovers(&policy)?;
                }
            }
            Err(error) => complain(PROGRAM, error),
        }
        stdout::sleep(every)?;
    }
}

fn remove_leftovers(policy: &Policy) -> Result<()> {
    let removed = policy.remove_leftovers()?;
    if removed > 0 {
        complain(PROGRAM, format!("also removed {removed} semaphores and segments of memory"));
    }
    Ok(())
}
