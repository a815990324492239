//! What lies below the root: opened there and nowhere else, and only if it is a regular file.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::Error;
use super::admit::Confined;
use crate::process::introspection;
use crate::wire::{Kind, Meta, Range};

/// The folder whose content is served.
#[derive(Debug)]
pub(super) struct Export {
    root: OwnedFd,
}

/// A regular file, opened with the caller's rights, and the part of it to send.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) stat: FileStat,
    pub(super) range: Range,
}

/// Why there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{}", .0.desc())]
    Os(#[from] Errno),
    #[error("Is a directory")]
    Directory,
    #[error("Is a {0}, not a regular file")]
    Special(&'static str),
}

impl OpenError {
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Os(errno) => errno,
            Self::Directory => Errno::EISDIR,
            Self::Special(_) => Errno::EOPNOTSUPP,
        }
    }
}

impl Export {
    /// How often a path is resolved while somebody renames folders on it.
    const TRIES: usize = 32;

    /// Opens the root, by the same call that will resolve every path below it.
    pub(super) fn open_root(root: &Path) -> Result<Self, Error> {
        let failed = |errno| Error::Root { root: root.to_owned(), errno };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        let root = openat2(AT_FDCWD, root, how).map_err(failed)?;
        match fs::symlink_metadata(itself(&root)) {
            Ok(_) => Ok(Self { root }),
            Err(_) => Err(Error::NoProc),
        }
    }

    /// Opens what an admitted caller asked for.
    pub(super) fn open(&self, request: &Confined<'_>) -> Result<Opened, OpenError> {
        // Looked at before it is opened: opening a FIFO lets its writer go on, and a device may do
        // anything.
        let found = self.resolve(request.path(), OFlag::O_PATH | OFlag::O_CLOEXEC)?;
        let stat = regular(&found)?;
        if stat.st_size == 0 && introspection::may_tell_of_this_process(&found, stat.st_dev) {
            return Err(OpenError::Os(Errno::EACCES));
        }
        let file = open_found(&found)?;
        let stat = regular(&file)?;
        Ok(Opened { file: File::from(file), stat, range: request.range() })
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        // As in a chroot: absolute paths and links begin at the root, and ".." stays in it.
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(inside);
        // EAGAIN: something was renamed meanwhile, and ".." could not be trusted; openat2(2).
        for _ in 1..Self::TRIES {
            match openat2(&self.root, path, how) {
                Err(Errno::EAGAIN) => {}
                outcome => return outcome,
            }
        }
        openat2(&self.root, path, how)
    }
}

impl AsFd for Export {
    /// The root, for nothing but finding what lies below it (`O_PATH`).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Opens for reading what was found, whatever its path leads to by now.
fn open_found(found: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(itself(found).as_str(), flags, Mode::empty())
}

/// What a descriptor is open on, as a path: proc_pid_fd(5).
fn itself(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// The file's status, if it is a regular one.
fn regular(file: &OwnedFd) -> Result<FileStat, OpenError> {
    let stat = fstat(file)?;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Ok(stat),
        SFlag::S_IFDIR => Err(OpenError::Directory),
        other => Err(OpenError::Special(name(other))),
    }
}

fn name(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFIFO => "FIFO",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ => "special file",
    }
}

impl Opened {
    /// The bytes to send; None where the file's size is unknown: it is then read to its end.
    pub(super) fn length(&self) -> Option<u64> {
        let size = u64::try_from(self.stat.st_size).unwrap_or(0);
        if size == 0 {
            // Empty, or a file of /proc, which does not know: reading tells.
            return self.range.length;
        }
        let rest = size.saturating_sub(self.range.offset);
        Some(self.range.length.map_or(rest, |length| length.min(rest)))
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            kind: Kind::Regular,
            mode: self.stat.st_mode,
            size: u64::try_from(self.stat.st_size).unwrap_or(0),
            mtime: (self.stat.st_mtime, u32::try_from(self.stat.st_mtime_nsec).unwrap_or(0)),
            device: self.stat.st_dev,
            inode: self.stat.st_ino,
            offset: self.range.offset,
            length: if self.stat.st_size == 0 { None } else { self.length() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_was_found_is_opened_and_not_what_stands_there_by_then() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("name");
        fs::write(&path, "found").unwrap();
        let export = Export::open_root(root.path()).unwrap();
        let name = Path::new("/name");
        let found = export.resolve(name, OFlag::O_PATH).unwrap();
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut content = String::new();
        let file = open_found(&found).unwrap();
        File::from(file).read_to_string(&mut content).unwrap();
        assert_eq!(content, "found");
    }
}
