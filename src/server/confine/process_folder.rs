//! The folder of a process in /proc, opened once.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use sysv_ipc::Pid;

use crate::ownership::procfs::Stat;

/// The folder of a process. Once the process has ended, nothing in it can be read, even if another
/// process has its pid by then.
pub(super) struct ProcessFolder(OwnedFd);

impl ProcessFolder {
    pub(super) fn open(pid: Pid) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(&*format!("/proc/{pid}"), flags, Mode::empty())?))
    }

    pub(super) fn stat(&self) -> io::Result<Stat> {
        Stat::read_from(self.file("stat")?)
    }

    /// All of its `status`, which is longer for a process with many groups: proc_pid_status(5).
    pub(super) fn status(&self) -> io::Result<Vec<u8>> {
        let mut status = Vec::with_capacity(4096);
        self.file("status")?.take(1 << 20).read_to_end(&mut status)?;
        Ok(status)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        Ok(openat(&self.0, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }
}
