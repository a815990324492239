//! `mqfs-reap --watch`: again and again, a line for each thing done, until a signal.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

use super::report::Row;
use super::{Opts, PROGRAM};
use crate::cli::console::{Console, Event};
use crate::cli::table::Names;
use crate::cli::{NOBODY_READS, complain};
use crate::reaper::{Action, Policy};
use crate::sys::signals;

/// Does it every so often, until there is a reason to end.
pub(super) fn watch(opts: &Opts, every: Duration) -> Result<ExitCode> {
    let mut watch = Watch {
        console: Console::new(PROGRAM, ending())?,
        policy: opts.policy(),
        only_show: opts.dry_run,
        json: opts.json,
        names: Names::default(),
        told: HashMap::new(),
    };
    let end = loop {
        let pass = watch.pass().and_then(|()| watch.console.sleep(every));
        if let Err(end) = pass {
            break end;
        }
    };
    Ok(match end {
        Event::NobodyReads => ExitCode::from(NOBODY_READS),
        _ => ExitCode::SUCCESS,
    })
}

/// SIGINT, SIGTERM and SIGHUP are how it is meant to end.
fn ending() -> SigSet {
    let mut ending = SigSet::empty();
    ending.add(Signal::SIGINT);
    ending.add(Signal::SIGTERM);
    // Ignored under nohup(1). A signal that is held back is not ignored: signal(7).
    if !signals::is_ignored(Signal::SIGHUP) {
        ending.add(Signal::SIGHUP);
    }
    ending
}

struct Watch {
    console: Console,
    policy: Policy,
    only_show: bool,
    json: bool,
    names: Names,
    /// What was said of orphans that are still there, so that it is not said again.
    told: HashMap<i32, (SystemTime, String)>,
}

impl Watch {
    fn pass(&mut self) -> Result<(), Event> {
        let findings = match self.policy.survey() {
            Ok(findings) => findings,
            Err(error) => {
                complain(PROGRAM, error);
                return Ok(());
            }
        };
        let mut told = HashMap::new();
        for finding in findings.iter().filter(|finding| finding.verdict.is_orphan()) {
            let row = Row::carry_out(finding, self.only_show);
            if matches!(row.action, Some(Action::Vanished | Action::Used | Action::Kept)) {
                continue;
            }
            let id = finding.queue.id().get();
            let what = (finding.status.changed_at, row.action());
            if self.told.get(&id) != Some(&what) {
                let line = if self.json { row.json_line() } else { row.line(&mut self.names) };
                self.console.write(&line)?;
            }
            if row.action != Some(Action::Removed) {
                told.insert(id, what);
            }
        }
        self.told = told;
        Ok(())
    }
}
