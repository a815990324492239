//! The last word of a program that a signal ends.

use std::io::Write;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use super::PROGRAM;
use crate::cli::INTERRUPTED;
use crate::cli::logging::Stderr;
use crate::cli::progress;
use crate::client::Canceller;
use crate::client::save::Unfinished;
use crate::sys::signals::Held;
use crate::sys::{self, signals};

/// Leaves the last word, and the exit, to the thread that handles the signal.
pub(super) fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

/// Leaves nothing behind when a signal ends the program, wherever its main thread may be: that one
/// may be waiting for somebody to read its output.
pub(super) fn clean_up_on_signals(
    canceller: Canceller,
    unfinished: Unfinished,
    quiet: bool,
) -> Result<()> {
    let _held = Held::new(SigSet::all());
    let under_nohup = signals::is_ignored(Signal::SIGHUP);
    ctrlc::set_handler(move || {
        canceller.cancel();
        unfinished.discard();
        progress::take_away();
        if !quiet {
            // Never waits: whoever was to read it may be gone, or be who sent the signal.
            let _ = Stderr.write_all(format!("{PROGRAM}: interrupted\n").as_bytes());
        }
        sys::exit_now(INTERRUPTED.into());
    })
    .context("cannot handle signals")?;
    if under_nohup {
        signals::ignore(Signal::SIGHUP).context("sigaction")?;
    }
    signals::end_on_every_signal(&[]).context("sigaction")
}
