//! The terminal: how large it is, and keys as they are pressed.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// How many lines and columns a terminal has. None: it is no terminal, or does not know.
pub fn size(terminal: impl AsFd) -> Option<(usize, usize)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    let descriptor = terminal.as_fd().as_raw_fd();
    // SAFETY: size is a winsize for the call to fill in; TIOCGWINSZ(2const).
    let outcome = unsafe { libc::ioctl(descriptor, libc::TIOCGWINSZ, size.as_mut_ptr()) };
    Errno::result(outcome).ok()?;
    // SAFETY: integers only, of which zero is one; and the kernel filled them in.
    let size = unsafe { size.assume_init() };
    let (lines, columns) = (size.ws_row.into(), size.ws_col.into());
    (lines > 0 && columns > 0).then_some((lines, columns))
}

/// A terminal that gives each key as it is pressed and does not show it, until this goes. Ctrl-C,
/// Ctrl-Z and Ctrl-\ still send their signals.
#[derive(Debug)]
pub struct Keys {
    terminal: OwnedFd,
    before: Termios,
}

impl Keys {
    /// Takes over a terminal's keys.
    ///
    /// # Errors
    /// `ENOTTY`: it is no terminal.
    pub fn of(terminal: impl AsFd) -> Result<Self, Errno> {
        let before = tcgetattr(&terminal)?;
        let mut keys = before.clone();
        keys.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        let terminal = terminal.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        tcsetattr(&terminal, SetArg::TCSADRAIN, &keys)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
