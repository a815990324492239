//! Where an output path leads.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, stat};
use sysv_ipc::Uid;

use super::dir::Dir;
use crate::sys::credentials::is_unknown_uid;
use crate::sys::geteuid;

pub(super) struct OutputTarget {
    pub(super) dir: Dir,
    pub(super) name: OsString,
    /// What has the name now. It is a link only if it stands for one of our own descriptors, as
    /// /dev/stdout and /dev/fd/N do: what is behind it has its own position, and perhaps no name.
    pub(super) existing: Option<FileStat>,
}

/// Resolves a path, following symbolic links, also to what does not exist yet. From here on the
/// result does not depend on the path any more: the directory is open.
pub(super) fn resolve(path: &Path) -> io::Result<OutputTarget> {
    const MAX_LINKS: usize = 40; // as the kernel: path_resolution(7)
    let descriptors = stat("/proc/self/fd").ok();
    let (mut path, mut base) = (path.to_owned(), None);
    for _ in 0..MAX_LINKS {
        let base_fd = base.as_ref().map_or(AT_FDCWD, Dir::as_fd);
        let Some(name) = file_name(&path).map(OsStr::to_owned) else {
            Dir::open_at(base_fd, &path)?; // says if it does not exist, or is none
            return Err(Errno::EISDIR.into());
        };
        // openat(2) takes no empty path, which is the parent of a name alone.
        let parent = Path::new(".").join(path.parent().unwrap_or("".as_ref()));
        let dir = Dir::open_at(base_fd, &parent)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = match openat(&dir, &*name, flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(OutputTarget { dir, name, existing: None }),
            Err(errno) => return Err(errno.into()),
        };
        let (existing, parent) = (fstat(&found)?, fstat(&dir)?);
        if is_type(&existing, SFlag::S_IFDIR) {
            return Err(Errno::EISDIR.into());
        }
        if may_be_planted(&existing, &parent) {
            let why = "not a regular file, and another user may have put it there";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let is_descriptor = descriptors.is_some_and(|stat| is_same_file(&stat, &parent));
        if !is_type(&existing, SFlag::S_IFLNK) || is_descriptor {
            return Ok(OutputTarget { dir, name, existing: Some(existing) });
        }
        path = PathBuf::from(readlinkat(&found, "")?); // of the very link that was looked at
        base = Some(dir);
    }
    Err(Errno::ELOOP.into())
}

/// Whether another user may have put a link or a FIFO into a directory that others may write to:
/// the rule of `protected_symlinks`, proc_sys_fs(5), even where it is switched off. Where all may
/// write and the directory is not sticky, anybody can also move a link of ours to another name.
fn may_be_planted(found: &FileStat, dir: &FileStat) -> bool {
    let mode = Mode::from_bits_truncate(dir.st_mode);
    let is_shared = mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH);
    // Every user without a number in this user namespace shows as the same, unknown one.
    let is_trusted = [geteuid().as_raw(), dir.st_uid].contains(&found.st_uid)
        && !is_unknown_uid(Uid::from_raw(found.st_uid));
    let (is_file, is_link) = (is_type(found, SFlag::S_IFREG), is_type(found, SFlag::S_IFLNK));
    let anyone_renames = mode.contains(Mode::S_IWOTH) && !mode.contains(Mode::S_ISVTX);
    is_shared && !is_file && (!is_trusted || is_link && anyone_renames)
}

pub(super) fn is_type(stat: &FileStat, file_type: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == file_type
}

pub(super) fn is_same_file(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// The last component of a path, unless the path can only mean a directory: `/`, `..`, `a/`, `a/.`.
fn file_name(path: &Path) -> Option<&OsStr> {
    let name = path.file_name()?;
    path.as_os_str().as_bytes().ends_with(name.as_bytes()).then_some(name)
}
