//! Descriptors of processes. Unlike a pid, a descriptor never names another process later.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use sysv_ipc::Pid;

/// Opens a process. The descriptor becomes readable for poll(2) when the process ends.
///
/// # Errors
/// `ESRCH`: there is no such process. Source: pidfd_open(2).
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two integers; pidfd_open(2).
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let descriptor = RawFd::try_from(Errno::result(descriptor)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call made it just now, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
