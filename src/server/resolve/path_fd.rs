//! A file that was found, but not opened.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::server::confine::may_reveal_this_process;
use crate::wire::Kind;

/// A handle to a file of any kind (`O_PATH`). It gives the metadata, but not the content. Opening
/// it opens this inode, even if the path leads to another file by then.
#[derive(Debug)]
pub(crate) struct PathFd {
    descriptor: OwnedFd,
    pub(crate) stat: FileStat,
}

impl PathFd {
    pub(super) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(&descriptor)?;
        Ok(Self { descriptor, stat })
    }

    /// Finds the file with this name in a directory, and follows no link.
    pub(crate) fn below(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        let inside = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(inside);
        Self::new(openat2(directory, OsStr::from_bytes(name), how)?)
    }

    pub(crate) fn kind(&self) -> Kind {
        kind(&self.stat)
    }

    /// Opens the file for reading.
    pub(crate) fn open_file(&self) -> Result<File, Errno> {
        // Files of /proc have the size 0: skip the check for all others.
        if self.stat.st_size == 0 {
            self.refuse_own_proc_files()?;
        }
        Ok(self.open(OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?.into())
    }

    /// Opens the directory for reading.
    pub(crate) fn open_directory(&self) -> Result<OwnedFd, Errno> {
        self.refuse_own_proc_files()?;
        self.open(OFlag::O_DIRECTORY)
    }

    /// Reads the symbolic link. Empty for any other file.
    pub(crate) fn target(&self) -> Result<Vec<u8>, Errno> {
        if self.kind() != Kind::Link {
            return Ok(Vec::new());
        }
        self.refuse_own_proc_files()?;
        readlinkat(&self.descriptor, "").map(OsStringExt::into_vec)
    }

    fn open(&self, flags: OFlag) -> Result<OwnedFd, Errno> {
        open(proc_path(&self.descriptor).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn refuse_own_proc_files(&self) -> Result<(), Errno> {
        match may_reveal_this_process(&self.descriptor, self.stat.st_dev) {
            true => Err(Errno::EACCES),
            false => Ok(()),
        }
    }
}

/// The path in /proc that leads to the file of a descriptor: proc_pid_fd(5).
pub(super) fn proc_path(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// The kind of a file.
pub(crate) fn kind(stat: &FileStat) -> Kind {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::Regular,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Link,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        SFlag::S_IFCHR => Kind::CharacterDevice,
        SFlag::S_IFBLK => Kind::BlockDevice,
        _ => Kind::Unknown,
    }
}
