//! The identity of this process, as a lease names it.

use std::cell::Cell;

use sysv_ipc::ProcessMark;

use super::procfs::{self, Stat};
use crate::sys::getpid;
use crate::wire::OwnerId;

/// The identity of this process. Reading /proc takes longer than sending a request, so each thread
/// keeps the result. A forked child inherits it, but has another mark, so it reads /proc anew.
pub(super) fn current_process() -> OwnerId {
    thread_local! {
        static KNOWN: Cell<Option<(ProcessMark, OwnerId)>> = const { Cell::new(None) };
    }
    let here = ProcessMark::current();
    match KNOWN.get() {
        Some((mark, owner)) if mark == here => owner,
        _ => {
            let owner = read_identity();
            if owner.start_time > 0 && owner.pid_namespace > 0 {
                KNOWN.set(Some((here, owner)));
            }
            owner
        }
    }
}

fn read_identity() -> OwnerId {
    OwnerId {
        pid: getpid().as_raw(),
        start_time: Stat::read("self").map_or(0, |stat| stat.start_time),
        pid_namespace: procfs::own_pid_namespace(),
        time_namespace: procfs::namespace("self", "time").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{exit_now, exit_status, fork_child};

    #[test]
    fn a_forked_child_has_an_identity_of_its_own() {
        assert_eq!(current_process(), read_identity());
        let child = fork_child(|| exit_now(i32::from(current_process() != read_identity())));
        assert_eq!(exit_status(child.unwrap()), Some(0));
    }
}
