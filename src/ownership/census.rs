//! A census of all processes of the machine, to judge owners in other pid namespaces.

use std::io;

use nix::errno::Errno;

use super::procfs::{self, Stat};
use crate::sys::errno_of;
use crate::wire::OwnerId;

/// Every process of the machine, as the initial pid namespace shows it.
#[derive(Debug)]
pub(super) struct Census(Vec<Resident>);

/// A process. None: the field could not be read, so it may have any value.
#[derive(Debug)]
struct Resident {
    pid_namespace: Option<u64>,
    inner_pid: Option<i32>,
    start_time: Option<u64>,
}

impl Census {
    /// `PROC_PID_INIT_INO` in linux/proc_ns.h: the same on every kernel.
    const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

    /// Lists all processes that live throughout the census: /proc lists pids in ascending order.
    /// None if /proc does not list them all: this is not the initial pid namespace, or /proc
    /// belongs to another one, or hides processes.
    pub(super) fn take() -> Option<Self> {
        let here = procfs::namespace("self", "pid").ok()?;
        if here != Self::INITIAL_PID_NAMESPACE || !procfs::is_ours() || !procfs::shows_everybody() {
            return None;
        }
        let pids = procfs::processes().ok()?;
        Some(Self(pids.iter().filter_map(|pid| Resident::read(pid)).collect()))
    }

    /// Whether a process may be this owner. Start times count only if they can be compared. An
    /// owner whose pid namespace is unknown (0) may be in any.
    pub(super) fn may_hold(&self, owner: &OwnerId, compare_start: bool) -> bool {
        self.0.iter().any(|resident| {
            let home = resident.pid_namespace.filter(|_| owner.pid_namespace != 0);
            home.is_none_or(|home| home == owner.pid_namespace)
                && resident.inner_pid.is_none_or(|pid| pid == owner.pid)
                && (!compare_start || resident.start_time.is_none_or(|t| t == owner.start_time))
        })
    }
}

impl Resident {
    /// Reads a process in /proc. None: it has ended.
    fn read(pid: &str) -> Option<Self> {
        let read = |pid: &str| {
            Some((known_or_gone(Stat::read(pid))?, known_or_gone(procfs::namespace(pid, "pid"))?))
        };
        let (stat, pid_namespace) = procfs::in_time(pid, read).unwrap_or(Some((None, None)))?;
        if stat.is_some_and(|stat| stat.is_zombie()) {
            return None;
        }
        let ids = known_or_gone(procfs::ids(pid))?.unwrap_or_default();
        // ptrace(2) may forbid reading the namespace of another user's process. But a process that
        // has only one pid is in this namespace and in none below it.
        let above_all = (ids.len() == 1).then_some(Census::INITIAL_PID_NAMESPACE);
        Some(Self {
            pid_namespace: pid_namespace.or(above_all),
            inner_pid: ids.last().copied(),
            start_time: stat.map(|stat| stat.start_time),
        })
    }
}

/// None: the process is gone. Some(None): it exists, but the value cannot be read.
fn known_or_gone<T>(answer: io::Result<T>) -> Option<Option<T>> {
    match answer {
        Ok(value) => Some(Some(value)),
        Err(error) if matches!(errno_of(&error), Errno::ENOENT | Errno::ESRCH) => None,
        Err(_) => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_gone_is_left_out_of_the_census() {
        let told = |errno: Errno| known_or_gone::<()>(Err(errno.into()));
        assert_eq!([Errno::ENOENT, Errno::ESRCH].map(told), [None; 2]);
        let unknown = [Errno::EACCES, Errno::EPERM, Errno::EMFILE, Errno::ENOMEM].map(told);
        assert_eq!(unknown, [Some(None); 4]);
    }

    #[test]
    fn census_holds_an_owner_unless_a_known_field_of_each_resident_differs() {
        let (home, pid, start) = (4_026_532_000, 7, 100);
        let owner = OwnerId { pid, start_time: start, pid_namespace: home, time_namespace: 1 };
        for (pid_namespace, inner_pid, start_time, holds) in [
            (Some(home), Some(pid), Some(start), true),
            (Some(home + 1), Some(pid), Some(start), false),
            (Some(home), Some(pid + 1), Some(start), false),
            (Some(home), Some(pid), Some(start + 1), false),
            (None, Some(pid), Some(start), true),
            (Some(home), None, Some(start), true),
            (Some(home), Some(pid), None, true),
            (None, None, None, true),
        ] {
            let census = Census(vec![Resident { pid_namespace, inner_pid, start_time }]);
            assert_eq!(census.may_hold(&owner, true), holds, "{census:?}");
            // Start times that cannot be compared are ignored.
            let started_later = start_time == Some(start + 1);
            assert_eq!(census.may_hold(&owner, false), holds || started_later, "{census:?}");
        }
        assert!(!Census(vec![]).may_hold(&owner, false));
    }
}
