//! What the tests share: keys of their own, children, and namespaces.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use sysv_ipc::{Key, MessageType};

/// A key that no other test uses.
pub(crate) fn own_key() -> Key {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    let process = std::process::id().cast_signed() & 0x000f_ffff;
    Key::new(0x5000_0000 | process << 8 | NEXT.fetch_add(1, Ordering::Relaxed) & 0xff)
}

pub(crate) fn mtype(number: i64) -> MessageType {
    MessageType::new(number).unwrap()
}

/// Forks a child that ends with success if `body` returns true.
pub(crate) fn spawn(body: impl FnOnce() -> bool) -> Pid {
    // SAFETY: the child runs what its test is about, allocates with glibc's malloc, which fork
    // leaves usable, and ends without running destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let status = i32::from(!body());
            // SAFETY: takes an integer and does not return.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => child,
    }
}

/// Whether `body` returns true in a forked child.
pub(crate) fn in_child(body: impl FnOnce() -> bool) -> bool {
    succeeded(spawn(body))
}

pub(crate) fn succeeded(child: Pid) -> bool {
    waitpid(child, None) == Ok(WaitStatus::Exited(child, 0))
}

/// Runs `body` in a thread with an IPC namespace of its own, where it may change limits. Skipped,
/// with a line that says so, where that is not permitted.
pub(crate) fn in_own_namespace(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| match unshare(CloneFlags::CLONE_NEWIPC) {
            Ok(()) => body(),
            Err(errno) => eprintln!("skipped: unshare --ipc: {errno}"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
