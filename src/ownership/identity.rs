//! The identity of this process, as a lease names it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU64};

use sysv_ipc::ProcessMark;

use super::procfs::{self, Stat};
use crate::sys::getpid;
use crate::wire::OwnerId;

/// The identity of this process. A field is 0 if /proc does not show it; nobody can prove such an
/// owner dead.
///
/// Reading /proc takes longer than sending a request, so the result is kept, for this process
/// alone: a forked child has another mark.
pub(super) fn current_process() -> OwnerId {
    static CACHE: Cache = Cache::new();
    let mark = ProcessMark::current().as_raw();
    CACHE.get(mark).unwrap_or_else(|| {
        let owner = read_identity();
        if owner.start_time > 0 && owner.pid_namespace > 0 {
            CACHE.set(mark, &owner);
        }
        owner
    })
}

fn read_identity() -> OwnerId {
    OwnerId {
        pid: getpid().as_raw(),
        start_time: Stat::read("self").map_or(0, |stat| stat.start_time),
        pid_namespace: procfs::namespace("self", "pid").unwrap_or(0),
        time_namespace: procfs::namespace("self", "time").unwrap_or(0),
    }
}

/// The identity of the process with this mark. It needs no lock, which a fork at the wrong moment
/// would leave held in the child: all threads of a process store the same values.
struct Cache {
    mark: AtomicU64,
    pid: AtomicI32,
    start_time: AtomicU64,
    pid_namespace: AtomicU64,
    time_namespace: AtomicU64,
}

impl Cache {
    const fn new() -> Self {
        Self {
            mark: AtomicU64::new(0), // no process has it
            pid: AtomicI32::new(0),
            start_time: AtomicU64::new(0),
            pid_namespace: AtomicU64::new(0),
            time_namespace: AtomicU64::new(0),
        }
    }

    fn get(&self, mark: u64) -> Option<OwnerId> {
        (self.mark.load(Acquire) == mark).then(|| OwnerId {
            pid: self.pid.load(Relaxed),
            start_time: self.start_time.load(Relaxed),
            pid_namespace: self.pid_namespace.load(Relaxed),
            time_namespace: self.time_namespace.load(Relaxed),
        })
    }

    fn set(&self, mark: u64, owner: &OwnerId) {
        self.pid.store(owner.pid, Relaxed);
        self.start_time.store(owner.start_time, Relaxed);
        self.pid_namespace.store(owner.pid_namespace, Relaxed);
        self.time_namespace.store(owner.time_namespace, Relaxed);
        self.mark.store(mark, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    #[test]
    fn a_forked_child_has_an_identity_of_its_own() {
        let first = current_process();
        assert_eq!(first.pid, getpid().as_raw());
        assert_eq!(current_process(), first);
        assert_eq!(read_identity(), first);
        let child = fork_child(|| {
            let own = current_process();
            let right = own == read_identity() && own == current_process() && own.pid != first.pid;
            exit_now(if right { 0 } else { 1 })
        });
        assert_eq!(exit_status(child.unwrap()), Some(0));
        assert_eq!(current_process(), first);
    }
}
