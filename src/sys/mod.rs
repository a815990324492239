//! System calls that std and nix do not make safe: forking, becoming another user, signals. All
//! unsafe code of mqfs is here.

mod acl;
pub mod adaptive_spin;
pub mod child_exits;
pub mod credentials;
mod fork;
mod local_time;
pub mod nonblocking_write;
mod own_pid_namespace;
pub mod signals;
mod standard_streams;
#[cfg(feature = "server")]
mod stop_request;

use std::io;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::{Pid, Uid};

pub use acl::{common_rights, mode_without_acl};
pub use adaptive_spin::AdaptiveSpin;
pub use fork::{exit_now, fork_child, keep_heap_at_hand, leave_less_to_fork, share_one_arena};
pub use local_time::local_time;
pub use own_pid_namespace::own_pid_namespace;
pub use standard_streams::was_closed;
#[cfg(feature = "server")]
pub(crate) use stop_request::StopRequest;

pub fn geteuid() -> Uid {
    Uid::from_raw(nix::unistd::geteuid().as_raw())
}

pub fn getpid() -> Pid {
    Pid::current()
}

/// `kill(pid, signal)`: sends a signal, or with None only checks that it could be sent. `ESRCH`: no
/// process has this pid. `EPERM`: it belongs to another user.
pub fn kill(pid: Pid, signal: Option<Signal>) -> Result<(), Errno> {
    nix::sys::signal::kill(nix_pid(pid), signal)
}

fn nix_pid(pid: Pid) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(pid.as_raw())
}

pub(crate) fn errno_of_ipc(error: sysv_ipc::Error) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Waits for a child of a test, and returns its exit status.
#[cfg(test)]
pub(crate) fn exit_status(child: Pid) -> Option<i32> {
    use nix::sys::wait::{WaitStatus, waitpid};
    match waitpid(nix_pid(child), None) {
        Ok(WaitStatus::Exited(_, status)) => Some(status),
        _ => None,
    }
}

/// The errno of an error of std; `EIO` if it does not come from a system call.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
