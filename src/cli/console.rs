//! Standard output, keys, and the signals that come while a program writes or sleeps.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{complain, reason};
use crate::sys::signals::Held;

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A signal, by its number: real-time signals have no name.
    Signal(i32),
    Key(u8),
    NobodyReads,
}

/// The signals are held back and read from a descriptor: poll(2) then waits for any of these, and none
/// is lost between two waits. No handler runs.
pub(super) struct Console {
    program: &'static str,
    signals: SignalFd,
    reads_keys: bool,
}

impl Console {
    /// The most bytes that are written at once: a pipe that is ready takes as much without waiting
    /// (`PIPE_BUF`, pipe(7)).
    const AT_ONCE: usize = 4096;

    /// Holds these signals back for good: let go, a second one would still kill on the way out.
    pub(super) fn new(program: &'static str, signals: SigSet) -> Result<Self> {
        std::mem::forget(Held::new(signals));
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&signals, flags).context("signalfd")?;
        Ok(Self { program, signals, reads_keys: false })
    }

    /// From now on, waits for keys too, or not any more.
    pub(super) fn read_keys(&mut self, yes: bool) {
        self.reads_keys = yes;
    }

    /// Writes as soon as it can be done without waiting: a reader that does not read must not keep a
    /// signal from ending the program.
    pub(super) fn write(&self, text: &str) -> Result<(), Event> {
        for part in text.as_bytes().chunks(Self::AT_ONCE) {
            while !self.wait(PollFlags::POLLOUT, PollTimeout::NONE)? {}
            let mut stdout = io::stdout().lock();
            match stdout.write_all(part).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(Event::NobodyReads);
                }
                // A disk that is full may be emptied.
                Err(error) => {
                    complain(self.program, format!("standard output: {}", reason(&error)));
                    return Ok(());
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    pub(super) fn sleep(&self, time: Duration) -> Result<(), Event> {
        self.sleep_until(Instant::now() + time)
    }

    pub(super) fn sleep_until(&self, end: Instant) -> Result<(), Event> {
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
    fn wait(&self, events: PollFlags, timeout: PollTimeout) -> Result<bool, Event> {
        let (stdout, stdin) = (io::stdout(), io::stdin());
        let keys = if self.reads_keys { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut ready = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), events),
            PollFd::new(stdin.as_fd(), keys),
        ];
        // Hangups are reported whether asked for or not, also of what nobody reads.
        let count = if self.reads_keys { 3 } else { 2 };
        match poll(&mut ready[..count], timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            // The kernel has no memory for it, at worst: poll(2). Not in a busy loop, then.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
        let [_, stdout, stdin] = ready.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if let Ok(Some(signal)) = self.signals.read_signal() {
            return Err(Event::Signal(signal.ssi_signo.cast_signed()));
        }
        // Of a pipe when its last reader is gone, of a terminal when it is: poll(2).
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if stdout.intersects(broken) || (self.reads_keys && stdin.intersects(broken)) {
            return Err(Event::NobodyReads);
        }
        let mut key = [0];
        if self.reads_keys
            && stdin.contains(PollFlags::POLLIN)
            && nix::unistd::read(io::stdin(), &mut key) == Ok(1)
        {
            return Err(Event::Key(key[0]));
        }
        Ok(stdout.intersects(events))
    }
}
