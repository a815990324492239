//! `mqfs-reap --watch`: again and again, a line for each thing done, until a signal.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::report::{Names, Row};
use super::{Opts, PROGRAM};
use crate::cli::{NOBODY_READS, complain, reason};
use crate::process::signals::{self, Held};
use crate::reaper::{Action, Policy};

/// Does it every so often, until there is a reason to end.
pub(super) fn watch(opts: &Opts, every: Duration) -> Result<ExitCode> {
    let mut watch = Watch {
        console: Console::new()?,
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
        End::Signal => ExitCode::SUCCESS,
        End::NobodyReads => ExitCode::from(NOBODY_READS),
    })
}

/// Why the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGINT, SIGTERM or SIGHUP: how it is meant to end.
    Signal,
    NobodyReads,
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
    fn pass(&mut self) -> Result<(), End> {
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

/// Standard output, and the signals that end the program while it writes or sleeps.
///
/// The signals are held back and read from a descriptor: poll(2) then waits for either, and none is
/// lost between two waits. No handler runs.
struct Console {
    signals: SignalFd,
}

impl Console {
    fn new() -> Result<Self> {
        let mut ending = SigSet::empty();
        ending.add(Signal::SIGINT);
        ending.add(Signal::SIGTERM);
        // Ignored under nohup(1). A signal that is held back is not ignored: signal(7).
        if !signals::is_ignored(Signal::SIGHUP) {
            ending.add(Signal::SIGHUP);
        }
        // For good: let go, a second signal would still kill on the way out.
        std::mem::forget(Held::new(ending));
        let signals = SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC).context("signalfd")?;
        Ok(Self { signals })
    }

    /// Writes a line, once it can be written without waiting: a reader that does not read must not
    /// keep a signal from ending the program. A pipe that is ready takes a line whole (pipe(7)).
    fn write(&self, line: &str) -> Result<(), End> {
        while !self.wait(PollFlags::POLLOUT, PollTimeout::NONE)? {}
        let mut stdout = io::stdout().lock();
        match stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(End::NobodyReads),
            // A disk that is full may be emptied.
            Err(error) => {
                complain(PROGRAM, format!("standard output: {}", reason(&error)));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn sleep(&self, time: Duration) -> Result<(), End> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // In milliseconds, rounded up so as not to wake too early, and at most 24 days.
            let left = i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
            self.wait(PollFlags::empty(), PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
        }
    }

    /// Waits for these events of standard output, and whether they came before the time was up.
    fn wait(&self, events: PollFlags, timeout: PollTimeout) -> Result<bool, End> {
        let stdout = io::stdout();
        let mut ready = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), events),
        ];
        match poll(&mut ready, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            // The kernel has no memory for it, at worst: poll(2). Not in a busy loop, then.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
        let [signals, stdout] = ready.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        // Reported whether asked for or not; of a pipe when its last reader is gone: poll(2).
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if !signals.is_empty() {
            Err(End::Signal)
        } else if stdout.intersects(broken) {
            Err(End::NobodyReads)
        } else {
            Ok(stdout.intersects(events))
        }
    }
}
