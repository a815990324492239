//! What a forked child does with what its parent made.

#![allow(unsafe_code)]

use crate::common::{in_child, succeeded};
use sysv_ipc::{Key, Mode, Owned, OwnedQueue, ProcessMark, SharedMemory};

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
    // SAFETY: without CLONE_VM and without a stack, clone(2) acts as fork(2).
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        0 => {
            let status = i32::from(mark.is_current());
            // SAFETY: takes an integer and does not return.
            unsafe { libc::_exit(status) }
        }
        pid => assert!(succeeded(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()))),
    }
}

#[test]
fn a_forked_child_removes_nothing_that_its_parent_owns() {
    let queue = OwnedQueue::private(Mode::new(0o600)).unwrap();
    let handle = *queue;
    let child_removed_its_own_alone = in_child(|| {
        let own = OwnedQueue::private(Mode::new(0o600)).unwrap();
        let gone = *own;
        drop(own);
        // SAFETY: reads the value and leaves it in place; the child ends without dropping it again.
        drop(unsafe { std::ptr::read(&raw const queue) });
        gone.status().is_err() && handle.status().is_ok()
    });
    assert!(child_removed_its_own_alone);
    assert!(handle.status().is_ok());
    drop(queue);
    assert!(handle.status().unwrap_err().is_gone());
}

#[test]
fn what_is_released_is_not_removed() {
    let segment = SharedMemory::create(Key::PRIVATE, 1, Mode::new(0o600)).unwrap();
    let released = Owned::new(segment).release();
    assert!(released.status().is_ok());
    drop(Owned::new(segment));
    assert!(segment.status().unwrap_err().is_gone());
}
