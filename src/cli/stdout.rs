//! Standard output, whose reader may leave at any time.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Nobody reads standard output any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NobodyReads;

/// Writes text, in one go where the reader takes it.
///
/// # Errors
/// That of write(2), except that the reader has left: that is a result.
pub(super) fn print(text: &str) -> io::Result<Result<(), NobodyReads>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Err(NobodyReads)),
        written => written.map(Ok),
    }
}

/// Sleeps, but not longer than somebody reads standard output: a program in a pipeline ends with
/// it, also while it has nothing to say.
pub(super) fn sleep(time: Duration) -> Result<(), NobodyReads> {
    let end = Instant::now() + time;
    let stdout = io::stdout();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // Whole milliseconds, rounded up so as not to spin, and at most 24 days.
        let left = i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // No event is asked for: poll(2) reports what nobody reads all the same.
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(_) => {}
            Ok(_) => return Err(NobodyReads),
        }
    }
}
