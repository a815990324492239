//! `mqfs-reap --watch`: removes orphans again and again, and prints a line for each.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::report::Row;
use super::{Opts, PROGRAM, remove_leftovers};
use crate::cli::signals::EndingSignals;
use crate::cli::table::Names;
use crate::cli::{complain, stdout};
use crate::reaper::{Action, Policy};
use crate::sys;

/// Removes orphans every so often, until a signal.
pub(super) fn watch(opts: &Opts, every: Duration) -> Result<u8> {
    stdout::print("")?;
    EndingSignals::block(None)?.handle(|| sys::exit_now(0))?;
    let mut watch = Watch {
        policy: opts.policy(),
        only_show: opts.dry_run,
        json: opts.json,
        names: Names::default(),
        printed: HashMap::new(),
    };
    loop {
        watch.pass()?;
        stdout::sleep(every)?;
    }
}

struct Watch {
    policy: Policy,
    only_show: bool,
    json: bool,
    names: Names,
    /// What was printed about orphans that still exist, so that it is not printed again.
    printed: HashMap<i32, (SystemTime, String)>,
}

impl Watch {
    fn pass(&mut self) -> Result<()> {
        let findings = match self.policy.survey() {
            Ok(findings) => findings,
            Err(error) => {
                complain(PROGRAM, error);
                return Ok(());
            }
        };
        let mut printed = HashMap::new();
        for finding in findings.iter().filter(|finding| finding.verdict.is_orphan()) {
            let row = Row::carry_out(finding, self.only_show);
            if matches!(row.action, Some(Action::Changed | Action::Kept)) {
                continue;
            }
            let id = finding.queue.id().get();
            let what = (finding.status.changed_at, row.action());
            if self.printed.get(&id) != Some(&what) {
                let line = if self.json { row.json_line() } else { row.line(&mut self.names) };
                stdout::print_or_complain(PROGRAM, &line)?;
            }
            if row.action != Some(Action::Removed) {
                printed.insert(id, what);
            }
        }
        self.printed = printed;
        if self.only_show { Ok(()) } else { remove_leftovers(&self.policy) }
    }
}
