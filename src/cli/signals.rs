//! Signals that end a program, handled on a thread where ordinary code may run.

use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::sys::signals::{self, Blocked};

/// Signals that people, service managers, limits and timers send, and whose default action kills.
/// Not here: real-time signals, which nobody sends, and those of a program that is broken, such as
/// SIGSEGV. What these leave behind, the reaper removes.
const ENDING: [Signal; 12] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// The signals that end this program, blocked for good.
#[derive(Debug)]
pub(super) struct EndingSignals(SigSet);

impl EndingSignals {
    /// Blocks the signals, in this thread and in those that it starts. They stay pending until
    /// [`handle`](Self::handle), so from here on none of them kills the owner of a queue.
    ///
    /// A signal that is ignored stays ignored: SIGHUP under nohup(1), SIGINT in a background job of
    /// a script.
    pub(super) fn block() -> Result<Self> {
        // A file that grows too large is then an error of write(2), and no signal.
        signals::ignore(Signal::SIGXFSZ).context("sigaction")?;
        let mut ending = SigSet::empty();
        for signal in ENDING.into_iter().filter(|signal| !signals::is_ignored(*signal)) {
            ending.add(signal);
        }
        ending.thread_block().context("pthread_sigmask")?;
        Ok(Self(ending))
    }

    /// Leaves a signal to somebody else.
    pub(super) fn without(mut self, signal: Signal) -> Result<Self> {
        self.0.remove(signal);
        SigSet::from(signal).thread_unblock().context("pthread_sigmask")?;
        Ok(self)
    }

    /// Runs `handler` once for each signal that comes, on a thread of its own. Signals are blocked
    /// there and not caught, so no code runs in a signal handler: sigwait(3).
    pub(super) fn handle(self, mut handler: impl FnMut() + Send + 'static) -> Result<()> {
        let ending = self.0;
        let _blocked = Blocked::new(SigSet::all()); // in the new thread, for good
        let thread = thread::Builder::new().name("signals".to_owned());
        thread
            .spawn(move || {
                while ending.wait().is_ok() {
                    handler();
                }
            })
            .map(drop)
            .context("cannot handle signals")
    }
}
