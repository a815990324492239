//! Forking a child that never comes back.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, fork};

use super::signals::{self, Held};

/// The exit status of a child whose code panicked: `EX_SOFTWARE`, sysexits(3head).
const PANICKED: i32 = 70;

/// Forks a child that runs `body` and no destructor of its parent's.
///
/// The child ignores `SIGINT`, `SIGQUIT`, `SIGHUP` and `SIGTERM`: terminals and service managers send
/// them to all processes at once, and when children end is for the parent to say, with `SIGKILL`.
/// No signal reaches a handler of the parent's in between.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`: fork(2).
pub fn fork_child(body: impl FnOnce() -> Infallible) -> Result<Pid, Errno> {
    let held = Held::new(SigSet::all());
    // SAFETY: what another thread held stays held in the child, which can then hang, but sees no
    // memory half changed that it uses: glibc makes malloc usable in the child, and a server's only
    // other thread is ctrlc's, which holds nothing while it waits; fork(2), malloc(3).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            for signal in [Signal::SIGCHLD, Signal::SIGALRM] {
                let _ = signals::reset(signal);
            }
            for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM] {
                let _ = signals::ignore(signal);
            }
            drop(held);
            match catch_unwind(AssertUnwindSafe(body)) {
                Ok(never) => match never {},
                Err(_) => exit_now(PANICKED),
            }
        }
    }
}

/// `_exit(2)`: ends the process at once, without destructors and without what `atexit` registered.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes an integer and does not return; _exit(2).
    unsafe { libc::_exit(status) }
}
