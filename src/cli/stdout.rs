//! Standard output, whose reader may leave at any time: then these functions fail with `EPIPE`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::Term;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{complain, is_closed_pipe, reason};
use crate::client::save::OutputFile;

/// How many columns a table may take: those of the terminal, or any number in a pipe or a file.
pub(super) fn width() -> usize {
    Term::stdout().size_checked().map_or(usize::MAX, |(_, columns)| columns.into())
}

/// Writes text, in one write if the reader takes it all. Empty text only checks that this works.
pub(super) fn print(text: &str) -> Result<()> {
    // Not io::stdout(), which takes a closed descriptor for success.
    let written = OutputFile::stdout().and_then(|mut stdout| {
        stdout.write_all(text.as_bytes())?;
        stdout.commit()
    });
    written.context("cannot write standard output")
}

/// Writes text and carries on after errors: somebody may free space on a full disk.
pub(super) fn print_or_complain(program: &str, text: &str) -> Result<()> {
    match print(text) {
        Err(error) if !is_closed_pipe(&error) => complain(program, reason(format!("{error:#}"))),
        printed => printed?,
    }
    Ok(())
}

/// Sleeps, but ends as soon as the reader of standard output has left: a program in a pipeline ends
/// with its reader, even while it prints nothing.
pub(super) fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // Whole milliseconds, rounded up so as not to spin, and at most 24 days.
        let left = left + Duration::from_micros(999);
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // Requests no event: poll(2) reports a pipe without a reader in any case.
        let stdout = io::stdout();
        let events = poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::empty())], left);
        if events.is_ok_and(|events| events > 0) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
    }
}
