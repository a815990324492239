//! What a forked child does with what its parent made.
#![allow(unsafe_code)]

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use sysv_ipc::{Mode, OwnedQueue, ProcessMark};

/// Whether `body` returns true in a forked child.
fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls what its tests are about, allocates with glibc's malloc, which fork
    // leaves usable, and ends without running destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let status = i32::from(!body());
            // SAFETY: takes an integer and does not return.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))
        }
    }
}

#[test]
fn a_mark_is_current_in_the_process_that_took_it_and_in_no_child() {
    let mark = ProcessMark::current();
    assert!(in_child(|| {
        let child = ProcessMark::current();
        !mark.is_current()
            && child.is_current()
            && in_child(|| !mark.is_current() && !child.is_current())
            && child.is_current()
    }));
    assert!(mark.is_current());
}

#[test]
fn threads_share_a_mark() {
    let marks: Vec<ProcessMark> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ProcessMark::current)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(marks.iter().all(|mark| mark.is_current()), "{marks:?}");
}

#[test]
fn a_child_made_by_raw_clone_has_a_mark_of_its_own() {
    let mark = ProcessMark::current();
    let flags = libc::SIGCHLD;
    // SAFETY: without CLONE_VM and without a stack, clone(2) acts as fork(2).
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        0 => {
            let status = i32::from(mark.is_current());
            // SAFETY: takes an integer and does not return.
            unsafe { libc::_exit(status) }
        }
        pid => {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
        }
    }
}

#[test]
fn a_forked_child_removes_nothing_that_its_parent_owns() {
    let queue = OwnedQueue::private(Mode::new(0o600)).unwrap();
    let handle = *queue;
    let child_removed_its_own = in_child(|| {
        let own = OwnedQueue::private(Mode::new(0o600)).unwrap();
        let gone = *own;
        drop(own);
        // SAFETY: reads the value and leaves it in place; the child ends without dropping it again.
        drop(unsafe { std::ptr::read(&raw const queue) });
        gone.status().is_err() && handle.status().is_ok()
    });
    assert!(child_removed_its_own);
    assert!(handle.status().is_ok());
    drop(queue);
    assert!(handle.status().unwrap_err().is_gone());
}
