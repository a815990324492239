//! Children that ended, collected where no wait can miss them: in the handler of `SIGCHLD`.
//!
//! The book's grim reaper (TLPI section 26.3.1), which also keeps who ended and how. A flag that
//! the main loop looks at would not do: a child that ends just before msgrcv begins to wait would
//! stay a zombie until the next request.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use sysv_ipc::Pid;

use super::signals::{self, Blocked};

/// What ended and was not yet [taken](take_ended): pid and wait status in one word, 0 if empty.
static ENDED: OnceLock<Box<[AtomicU64]>> = OnceLock::new();

/// Collects children as they end, up to `capacity` of them between two calls of [`take_ended`]; more
/// stay zombies until then.
///
/// # Errors
/// None are known.
pub fn collect(capacity: usize) -> Result<(), Errno> {
    extern "C" fn reap(_: libc::c_int) {
        let errno = Errno::last();
        reap_all();
        errno.set();
    }
    ENDED.get_or_init(|| (0..capacity).map(|_| AtomicU64::new(0)).collect());
    // SAFETY: the handler waits without blocking and stores into atomics that exist by now, both
    // async-signal-safe, and it preserves errno: signal-safety(7).
    unsafe { signals::on(Signal::SIGCHLD, SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP, reap) }
        .map(drop)
}

fn reap_all() {
    let slots = slots();
    // What finds no place stays a zombie until there is one: see take_ended.
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

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub pid: Pid,
    /// How: its wait status. Not nix's `WaitStatus`, which knows no real-time signals.
    status: libc::c_int,
}

impl Ended {
    /// The status that it exited with.
    pub fn code(&self) -> Option<i32> {
        libc::WIFEXITED(self.status).then(|| libc::WEXITSTATUS(self.status))
    }

    /// The number of the signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        libc::WIFSIGNALED(self.status).then(|| libc::WTERMSIG(self.status))
    }
}

/// The children that ended since the last call. As process 1 of a pid namespace they may be other
/// processes' and any number.
pub fn take_ended() -> Vec<Ended> {
    let mut ended = Vec::new();
    loop {
        let before = ended.len();
        for slot in slots() {
            // Almost every slot is empty almost always: look before taking the cache line.
            if slot.load(Ordering::Relaxed) != 0 {
                let word = slot.swap(0, Ordering::AcqRel);
                let (pid, status) = ((word >> 32) as u32, word as u32);
                let pid = Pid::from_raw(pid.cast_signed());
                ended.push(Ended { pid, status: status.cast_signed() });
            }
        }
        if ended.len() - before < slots().len() {
            return ended;
        }
        // Every slot was taken: more may have ended than had a place. The handler is kept out, or
        // it could fill the place of one that was waited for just now.
        let _held = Blocked::new(SigSet::from(Signal::SIGCHLD));
        reap_all();
    }
}

/// Whether a child stands still until somebody lets it go on. Asked of wait, since /proc may hide
/// children that run as another user.
pub fn is_stopped(child: Pid) -> bool {
    let look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(super::nix_pid(child)), look), Ok(WaitStatus::Stopped(..)))
}

/// Waits until a child ends, `SIGCHLD` is sent, or the time is up; `done` is asked first, and
/// nothing that happens after it was asked is missed.
pub fn wait_unless(done: impl FnOnce() -> bool, timeout: Option<Duration>) {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGALRM);
    let _held = Blocked::new(signals);
    reap_all();
    if !done() {
        signals::wait(&signals, timeout);
        reap_all(); // sigtimedwait took the signal, so the handler did not run
    }
}
