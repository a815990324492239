//! This process's pid namespace, without /proc.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;

/// The inode of this process's pid namespace, as /proc/self/ns/pid shows it. None before Linux
/// 6.11, or where a filter forbids it.
pub fn own_pid_namespace() -> Option<u64> {
    const PIDFD_GET_PID_NAMESPACE: libc::c_ulong = 0xFF05; // linux/pidfd.h
    let (own, none) = (super::getpid().as_raw(), 0 as libc::c_long);
    // SAFETY: takes two integers; pidfd_open(2).
    let process = file(unsafe { libc::syscall(libc::SYS_pidfd_open, own, 0) })?;
    // SAFETY: this ioctl takes no argument, and the kernel demands 0; ioctl_pidfd(2).
    let opened = unsafe { libc::ioctl(process.as_raw_fd(), PIDFD_GET_PID_NAMESPACE as _, none) };
    file(opened.into())?.metadata().ok().map(|metadata| metadata.ino())
}

fn file(opened: libc::c_long) -> Option<File> {
    let fd = Errno::result(opened).ok()? as libc::c_int;
    // SAFETY: a system call has just opened it, and nothing else has it.
    Some(unsafe { File::from_raw_fd(fd) })
}
