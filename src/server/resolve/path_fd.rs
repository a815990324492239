//! Something that stands below the root: found, so that it can be looked at, before it is opened, if
//! it is.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::server::confine::own_proc_files;
use crate::wire::{Entry, Kind, Meta};

/// What a path, or a name, led to: by a descriptor that can do nothing (`O_PATH`).
#[derive(Debug)]
pub(crate) struct PathFd {
    descriptor: OwnedFd,
    pub(crate) stat: FileStat,
}

impl PathFd {
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(&descriptor)?;
        Ok(Self { descriptor, stat })
    }

    /// What has this name in a directory; of a link, the link itself.
    pub(crate) fn below(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        let inside = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(inside);
        Self::new(openat2(directory, OsStr::from_bytes(name), how)?)
    }

    pub(crate) fn kind(&self) -> Kind {
        kind(&self.stat)
    }

    /// Opens the file that was found, whatever its path leads to by now.
    pub(crate) fn open_file(&self) -> Result<File, Errno> {
        if self.stat.st_size == 0 {
            self.check_tells_nothing()?;
        }
        Ok(self.open(OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?.into())
    }

    /// Opens the directory that was found, to be read.
    pub(crate) fn open_directory(&self) -> Result<OwnedFd, Errno> {
        self.check_tells_nothing()?;
        self.open(OFlag::O_DIRECTORY)
    }

    fn open(&self, flags: OFlag) -> Result<OwnedFd, Errno> {
        open(itself(&self.descriptor).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Where the link that was found leads; of anything else, nowhere.
    pub(crate) fn target(&self) -> Result<Vec<u8>, Errno> {
        if self.kind() != Kind::Link {
            return Ok(Vec::new());
        }
        self.check_tells_nothing()?;
        readlinkat(&self.descriptor, "").map(OsStringExt::into_vec)
    }

    fn check_tells_nothing(&self) -> Result<(), Errno> {
        match own_proc_files::may_tell_of_this_process(&self.descriptor, self.stat.st_dev) {
            true => Err(Errno::EACCES),
            false => Ok(()),
        }
    }
}

/// What a descriptor is open on, as a path: proc_pid_fd(5).
pub(crate) fn itself(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

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

/// What is to be said of it, of which these bytes are to come.
pub(crate) fn meta(stat: &FileStat, offset: u64, length: Option<u64>) -> Meta {
    Meta {
        kind: kind(stat),
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        device: stat.st_dev,
        inode: stat.st_ino,
        offset,
        length,
    }
}

/// The same, and whose it is.
pub(crate) fn entry<'a>(
    stat: &FileStat,
    meta: Meta,
    name: &'a [u8],
    target: &'a [u8],
) -> Entry<'a> {
    Entry {
        meta,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink,
        special: stat.st_rdev,
        name,
        target,
    }
}
