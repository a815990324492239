//! Collects children that end, in the handler of `SIGCHLD`, so that no wait can miss one.
//!
//! A handler that only sets a flag would not do: a child that ends just before msgrcv begins to
//! wait would stay a zombie until the next request. See TLPI section 26.3.1.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use sysv_ipc::Pid;

use super::signals::{self, Blocked};

/// The children that ended and were not yet [taken](take_ended). A word holds a pid and a wait
/// status, or 0.
static ENDED: OnceLock<Box<[AtomicU64]>> = OnceLock::new();

/// Starts to collect children: up to `capacity` of them between two calls of [`take_ended`]. Others
/// stay zombies until then.
pub fn collect(capacity: usize) -> Result<(), Errno> {
    extern "C" fn reap(_: libc::c_int) {
        let errno = Errno::last();
        collect_now();
        errno.set();
    }
    ENDED.get_or_init(|| (0..capacity).map(|_| AtomicU64::new(0)).collect());
    // SAFETY: the handler waits without blocking and stores into atomics that exist by now, both
    // async-signal-safe, and it preserves errno: signal-safety(7).
    unsafe { signals::on(Signal::SIGCHLD, SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP, reap) }
        .map(drop)
}

/// Collects the children that ended. Call it while `SIGCHLD` is [blocked](Blocked).
pub fn collect_now() {
    let slots = slots();
    // Without a free slot a child stays a zombie: see take_ended.
    while slots.iter().any(|slot| slot.load(Ordering::Relaxed) == 0) {
        let mut status = 0;
        // SAFETY: status outlives the call; waitpid(2), which is async-signal-safe.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        let word = u64::from(pid.cast_unsigned()) << 32 | u64::from(status.cast_unsigned());
        let _ = slots.iter().find(|slot| {
            slot.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
    }
}

fn slots() -> &'static [AtomicU64] {
    ENDED.get().map_or(&[], |slots| slots)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub pid: Pid,
    /// Not nix's `WaitStatus`, which lacks real-time signals.
    pub status: ExitStatus,
}

/// Passes on the children that ended since the last call. If this is process 1 of a pid namespace,
/// they include adopted processes, in any number. It allocates nothing: a parent that writes to
/// fewer pages between two forks has fewer pages copied.
pub fn take_ended(mut each: impl FnMut(Ended)) {
    loop {
        let mut taken = 0;
        for slot in slots() {
            // Most slots are empty: a load does not take the cache line from other cores.
            if slot.load(Ordering::Relaxed) != 0 {
                let word = slot.swap(0, Ordering::AcqRel);
                let (pid, status) = ((word >> 32) as u32, word as u32);
                taken += 1;
                each(Ended {
                    pid: Pid::from_raw(pid.cast_signed()),
                    status: ExitStatus::from_raw(status.cast_signed()),
                });
            }
        }
        if taken < slots().len() {
            return;
        }
        // Every slot was full, so there may be zombies. Block the handler: it could fill the slot
        // for a child that we wait for here.
        let _held = Blocked::new(SigSet::from(Signal::SIGCHLD));
        collect_now();
    }
}

/// Whether a child is stopped (`SIGSTOP`). It uses waitid, because /proc may hide children that run
/// as another user.
pub fn is_stopped(child: Pid) -> bool {
    let look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(super::nix_pid(child)), look), Ok(WaitStatus::Stopped(..)))
}

/// Unless `done` returns true, waits until a child ends, `SIGCHLD` or `SIGALRM` arrives, or the
/// time is up. It misses no signal that arrives after it called `done`.
pub fn wait_unless(done: impl FnOnce() -> bool, timeout: Option<Duration>) {
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGALRM]);
    let _held = Blocked::new(signals);
    collect_now();
    if !done() {
        signals::wait(&signals, timeout);
        collect_now(); // sigtimedwait took the signal, so the handler did not run
    }
}
