//! Forking a child that never returns.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, fork};
use sysv_ipc::Pid;

use super::signals::{self, Blocked};

/// The exit status of a child that panicked: `EX_SOFTWARE`, sysexits(3head).
const PANICKED: i32 = 70;

const IGNORED: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGUSR1];

/// Forks a child that runs `body` and none of its parent's destructors.
///
/// The child ignores `SIGINT`, `SIGQUIT`, `SIGHUP` and `SIGTERM`, which terminals and service
/// managers send to all processes at once: the parent decides when children end, with `SIGKILL`.
/// It ignores `SIGUSR1` too, for which a child may have a handler of its own later. No handler of
/// the parent's runs in the child.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`: fork(2).
pub fn fork_child(body: impl FnOnce() -> Infallible) -> Result<Pid, Errno> {
    let _blocked = Blocked::new(SigSet::all());
    // SAFETY: a lock that another thread holds stays locked in the child, which can hang, but sees
    // no half-changed memory: glibc keeps malloc usable in the child, and the only other thread of
    // a server waits for signals and holds no lock meanwhile; fork(2), malloc(3).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Pid::from_raw(child.as_raw())),
        ForkResult::Child => {
            for signal in [Signal::SIGCHLD, Signal::SIGALRM] {
                let _ = signals::reset(signal);
            }
            for signal in IGNORED {
                let _ = signals::ignore(signal);
            }
            // The parent blocks the signals that one of its threads waits for. The child has no
            // such thread.
            let _ = SigSet::empty().thread_set_mask();
            match catch_unwind(AssertUnwindSafe(body)) {
                Ok(never) => match never {},
                Err(_) => exit_now(PANICKED),
            }
        }
    }
}

/// Makes all threads allocate from one arena. Every other arena would take four system calls, and
/// memory that each fork copies and locks. Call it before there are other threads, in a program
/// whose other threads do little.
///
/// Source: `M_ARENA_MAX`, mallopt(3).
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers; mallopt(3).
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Grows the heap by a mebibyte now, and never lets it shrink, so that a server can go on when the
/// machine has no memory left. Until it is used, it takes addresses and no pages.
///
/// Source: `M_TOP_PAD` and `M_TRIM_THRESHOLD`, mallopt(3).
pub fn keep_heap_at_hand() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_TRIM_THRESHOLD, 8 << 20), (libc::M_TOP_PAD, 1 << 20)] {
        // SAFETY: takes two integers; mallopt(3).
        let _ = unsafe { libc::mallopt(parameter, bytes) };
    }
    // More than the initial heap, and less than malloc maps separately.
    let more = [(); 2].map(|()| Vec::<u8>::with_capacity(120 << 10));
    drop(std::hint::black_box(more));
}

/// `_exit(2)`: ends the process at once, without destructors and without what `atexit` registered.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes an integer and does not return; _exit(2).
    unsafe { libc::_exit(status) }
}
