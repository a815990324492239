//! `mqfs-reap --watch`: removes orphans again and again, and prints a line for each.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use sysv_ipc::QueueId;

use super::report::Row;
use super::{Opts, PROGRAM, remove_leftovers};
use crate::cli::table::Names;
use crate::cli::{complain, signals, stdout};
use crate::reaper::{Action, Finding};
use crate::sys;

/// What was printed about orphans that still exist, so that it is not printed again.
type Printed = HashMap<QueueId, (SystemTime, String)>;

pub(super) fn watch(opts: &Opts, every: Duration) -> Result<u8> {
    stdout::print("")?;
    signals::handle(|| sys::exit_now(0))?;
    let (policy, mut names, mut printed) = (opts.policy(), Names::default(), Printed::new());
    loop {
        match policy.survey() {
            Ok(findings) => {
                printed = pass(opts, &findings, &mut names, &printed)?;
                if !opts.dry_run {
                    remove_leftovers(&policy)?;
                }
            }
            Err(error) => complain(PROGRAM, error),
        }
        stdout::sleep(every)?;
    }
}

fn pass(
    opts: &Opts,
    findings: &[Finding],
    names: &mut Names,
    printed: &Printed,
) -> Result<Printed> {
    let mut left = Printed::new();
    for finding in findings.iter().filter(|finding| finding.verdict.is_orphan()) {
        let row = Row::carry_out(finding, opts.dry_run);
        if matches!(row.action, Some(Action::Changed | Action::Kept)) {
            continue;
        }
        let id = finding.queue.id();
        let what = (finding.status.changed_at, row.action());
        if printed.get(&id) != Some(&what) {
            let line = if opts.json { row.json_line(true) } else { row.line(names) };
            stdout::print_or_complain(PROGRAM, &line)?;
        }
        if row.action != Some(Action::Removed) {
            left.insert(id, what);
        }
    }
    Ok(left)
}
