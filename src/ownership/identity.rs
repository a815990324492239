//! What this process is, as others can tell it from any other: looked up once, and not believed by a
//! forked child.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

use super::procfs::{self as proc, Stat};
use crate::wire::OwnerId;

/// This process, as a lease names it. Where /proc does not tell, the field is 0: such an owner can
/// be proven dead by nobody.
///
/// Looking takes longer than sending a request. A pid would not do to tell whether
/// it was this process that looked: numbers come round, and a child may have its parent's in another
/// namespace. So what was found lies in memory that the kernel empties at a fork.
pub(super) fn current_process() -> OwnerId {
    let Some(page) = Page::get() else { return look() };
    page.read().unwrap_or_else(|| {
        let found = look();
        if found.start_time > 0 && found.pid_namespace > 0 {
            page.write(&found);
        }
        found
    })
}

fn look() -> OwnerId {
    OwnerId {
        pid: crate::sys::getpid().as_raw(),
        start_time: Stat::read("self").map_or(0, |stat| stat.start_time),
        pid_namespace: proc::namespace("self", "pid").unwrap_or(0),
        time_namespace: proc::namespace("self", "time").unwrap_or(0),
    }
}

/// A page that a forked child finds empty.
#[derive(Clone, Copy)]
struct Page(NonNull<Found>);

/// What was found, once `known`. All writers write the same.
#[repr(C)]
struct Found {
    known: AtomicBool,
    pid: AtomicI32,
    start_time: AtomicU64,
    pid_namespace: AtomicU64,
    time_namespace: AtomicU64,
}

impl Page {
    /// The one page. Without a lock, which a fork at the wrong moment would leave held in the child; so
    /// threads that ask at the same time may each map one, and all but one are in vain.
    fn get() -> Option<Self> {
        static PAGE: AtomicPtr<Found> = AtomicPtr::new(std::ptr::null_mut());
        if let Some(page) = NonNull::new(PAGE.load(Ordering::Acquire)) {
            return Some(Self(page));
        }
        let new = Self::new()?;
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        match PAGE.compare_exchange(std::ptr::null_mut(), new.0.as_ptr(), success, failure) {
            Ok(_) => Some(new),
            Err(first) => NonNull::new(first).map(Self),
        }
    }

    /// None on a kernel that cannot (before Linux 4.14).
    fn new() -> Option<Self> {
        let size = const { NonZeroUsize::new(size_of::<Found>()).unwrap() };
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new memory, which nobody else refers to; mmap(2).
        let page = unsafe { mmap_anonymous(None, size, rights, MapFlags::MAP_PRIVATE) }.ok()?;
        // SAFETY: the memory is ours, and zeroes are a valid Found; madvise(2).
        unsafe { madvise(page, size.get(), MmapAdvise::MADV_WIPEONFORK) }.ok()?;
        Some(Self(page.cast()))
    }

    fn found(&self) -> &Found {
        // SAFETY: mapped for good; zeroes, as a fork leaves it, are a valid Found.
        unsafe { self.0.as_ref() }
    }

    fn read(&self) -> Option<OwnerId> {
        let found = self.found();
        found.known.load(Ordering::Acquire).then(|| OwnerId {
            pid: found.pid.load(Ordering::Relaxed),
            start_time: found.start_time.load(Ordering::Relaxed),
            pid_namespace: found.pid_namespace.load(Ordering::Relaxed),
            time_namespace: found.time_namespace.load(Ordering::Relaxed),
        })
    }

    fn write(&self, owner: &OwnerId) {
        let found = self.found();
        found.pid.store(owner.pid, Ordering::Relaxed);
        found.start_time.store(owner.start_time, Ordering::Relaxed);
        found.pid_namespace.store(owner.pid_namespace, Ordering::Relaxed);
        found.time_namespace.store(owner.time_namespace, Ordering::Relaxed);
        found.known.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::getpid;

    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    #[test]
    fn a_process_is_what_it_was_and_its_child_another() {
        let first = current_process();
        assert_eq!(first.pid, getpid().as_raw());
        assert_eq!(current_process(), first);
        assert_eq!(look(), first);
        let child = fork_child(|| {
            let own = current_process();
            let right = own == look() && own == current_process() && own.pid != first.pid;
            exit_now(if right { 0 } else { 1 })
        });
        let pid = child.unwrap();
        assert_eq!(exit_status(pid), Some(0));
        assert_eq!(current_process(), first);
    }
}
