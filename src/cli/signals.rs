//! Signals that end a program. Except in a server, they are handled on a thread, where ordinary
//! code may run.

use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::sys::signals::{self, Blocked};

/// Signals that people, service managers, limits and timers send, and whose default action kills.
/// Real-time signals are omitted, as nobody sends them, and so are those of a broken program, such
/// as SIGSEGV: the reaper removes what it leaves behind.
const ENDING: [Signal; 12] = {
    use Signal::*;
    [
        SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU,
        SIGIO, SIGPWR,
    ]
};

/// Lets signals through that the starter of this program held back. Blocked signals stay blocked
/// across execve(2), and then nothing but SIGKILL might end the program, which leaves a queue.
///
/// A signal that is ignored stays ignored: SIGHUP under nohup(1), SIGINT in a background job of a
/// script. Only SIGTERM ends a program in any case.
pub(super) fn let_through() {
    // Errors: a sandbox denies the calls. Whoever needs them says so later.
    let _ = SigSet::all().thread_unblock();
    let _ = signals::reset(Signal::SIGTERM);
}

/// Blocks the signals that end this program, in this thread and in those that it starts. They stay
/// pending until they are handled, so from here on none of them kills the owner of a queue. Ignored
/// ones stay ignored. `used`: a signal that the program uses itself.
pub(super) fn block(used: Option<Signal>) -> Result<SigSet> {
    // Then a file that grows too large is an error of write(2), and not a signal.
    signals::ignore(Signal::SIGXFSZ).context("sigaction")?;
    let ends = |signal: &Signal| Some(*signal) != used && !signals::is_ignored(*signal);
    let ending: SigSet = ENDING.into_iter().filter(ends).collect();
    ending.thread_block().context("pthread_sigmask")?;
    Ok(ending)
}

/// Runs `handler` for each signal that would end this program, on a thread of its own. The signals
/// are blocked and not caught, so no code runs in a signal handler: sigwait(3).
pub(super) fn handle(mut handler: impl FnMut() + Send + 'static) -> Result<()> {
    let ending = block(None)?;
    let _blocked = Blocked::new(SigSet::all()); // in the new thread, for good
    let run = move || {
        while ending.wait().is_ok() {
            handler();
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(run).map(drop).context("cannot handle signals")
}
