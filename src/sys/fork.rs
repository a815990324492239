//! Forking a child that never comes back.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, fork};
use sysv_ipc::Pid;

use super::signals::{self, Blocked};

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
    let _blocked = Blocked::new(SigSet::all());
    // SAFETY: what another thread held stays held in the child, which can then hang, but sees no
    // memory half changed that it uses: glibc makes malloc usable in the child, and a server's only
    // other thread waits for signals, and holds nothing while it does; fork(2), malloc(3).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Pid::from_raw(child.as_raw())),
        ForkResult::Child => {
            for signal in [Signal::SIGCHLD, Signal::SIGALRM] {
                let _ = signals::reset(signal);
            }
            for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM] {
                let _ = signals::ignore(signal);
            }
            // Its parent blocks the signals that a thread of its own waits for. No thread waits here.
            let _ = SigSet::empty().thread_set_mask();
            match catch_unwind(AssertUnwindSafe(body)) {
                Ok(never) => match never {},
                Err(_) => exit_now(PANICKED),
            }
        }
    }
}

/// Has all threads allocate from one arena. Each further one takes four system calls to make, and is
/// memory for every fork to copy, and to lock. For a program whose other threads do little; before there
/// are any.
///
/// Source: `M_ARENA_MAX`, mallopt(3).
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers; mallopt(3).
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Has the heap grow by a mebibyte now, and never shrink: what a program needs that serves on when there is
/// no memory left. Untouched, it takes addresses and no pages.
///
/// Source: `M_TOP_PAD` and `M_TRIM_THRESHOLD`, mallopt(3).
pub fn keep_heap_at_hand() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_TRIM_THRESHOLD, 8 << 20), (libc::M_TOP_PAD, 1 << 20)] {
        // SAFETY: takes two integers; mallopt(3).
        let _ = unsafe { libc::mallopt(parameter, bytes) };
    }
    // More than the heap has at the beginning, and less than is mapped on its own.
    let more = [(); 2].map(|()| Vec::<u8>::with_capacity(120 << 10));
    drop(std::hint::black_box(more));
}

/// `_exit(2)`: ends the process at once, without destructors and without what `atexit` registered.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes an integer and does not return; _exit(2).
    unsafe { libc::_exit(status) }
}
