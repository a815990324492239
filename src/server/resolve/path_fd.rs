//! A file that was found, but not opened.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, SFlag};

use crate::server::confine::may_reveal_this_process;
use crate::sys::fstat;
use crate::wire::{Entry, Kind, Stat};

/// A handle to a file of any kind (`O_PATH`): its metadata, but not its content.
pub(crate) struct PathFd {
    descriptor: OwnedFd,
    pub(crate) stat: FileStat,
}

impl PathFd {
    pub(super) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(&descriptor)?;
        Ok(Self { descriptor, stat })
    }

    pub(crate) fn kind(&self) -> Kind {
        kind(&self.stat)
    }

    /// Whether this is the file that was found.
    pub(super) fn is(&self, file: impl AsFd) -> bool {
        let id = |stat: &FileStat| (stat.st_dev, stat.st_ino, kind(stat));
        fstat(file).is_ok_and(|stat| id(&stat) == id(&self.stat))
    }

    /// Reads the symbolic link. Empty for any other file.
    #[inline(never)] // with its buffer, every answer would touch another page of the stack
    pub(crate) fn target(&self) -> Result<Vec<u8>, Errno> {
        if self.kind() != Kind::Link {
            return Ok(Vec::new());
        }
        self.refuse_own_proc_files()?;
        readlinkat(&self.descriptor, "").map(OsStringExt::into_vec)
    }

    pub(super) fn refuse_own_proc_files(&self) -> Result<(), Errno> {
        let reveals = may_reveal_this_process(&self.descriptor, self.stat.st_dev);
        if reveals { Err(Errno::EACCES) } else { Ok(()) }
    }
}

impl AsFd for PathFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
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

/// The entry of a file, without name and target. No bytes of it will follow.
pub(crate) fn entry(stat: &FileStat) -> Entry<'static> {
    let stat = Stat {
        kind: kind(stat),
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        device: stat.st_dev,
        inode: stat.st_ino,
        uid: stat.st_uid,
        gid: stat.st_gid,
        #[allow(clippy::useless_conversion)] // u32 on 64-bit Arm
        links: stat.st_nlink.into(),
        special: stat.st_rdev,
    };
    Entry { stat, length: Some(0), ..Entry::default() }
}
