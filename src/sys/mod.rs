//! System calls that std and nix do not make safe: forking, becoming another user, signals. All
//! unsafe code of the library is here.

mod acl;
pub mod adaptive_spin;
pub mod child_exits;
pub mod credentials;
mod fork;
mod local_time;
mod moment;
pub mod nonblocking_write;
mod own_pid_namespace;
pub mod signals;
mod standard_streams;
#[cfg(feature = "server")]
mod stop_request;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::FileStat;
use sysv_ipc::{Pid, Uid};

pub use acl::{common_rights, mode_without_acl};
pub use adaptive_spin::AdaptiveSpin;
pub use fork::{exit_now, fork_child, keep_heap_at_hand, leave_less_to_fork, share_one_arena};
pub use local_time::local_time;
pub use moment::Moment;
pub use own_pid_namespace::own_pid_namespace;
pub use standard_streams::was_closed;
#[cfg(feature = "server")]
pub(crate) use stop_request::StopRequest;

pub fn geteuid() -> Uid {
    Uid::from_raw(nix::unistd::geteuid().as_raw())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use nix::sys::stat::fstat;

/// `fstat(2)`. glibc's passes a path from its own data: two more page faults in a new child.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn fstat(file: impl AsFd) -> Result<FileStat, Errno> {
    let fd = libc::c_long::from(file.as_fd().as_raw_fd());
    let mut stat = MaybeUninit::<FileStat>::zeroed();
    // SAFETY: here libc's structure is the kernel's, and outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_fstat, fd, stat.as_mut_ptr()) })?;
    // SAFETY: zero is a valid value.
    Ok(unsafe { stat.assume_init() })
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
