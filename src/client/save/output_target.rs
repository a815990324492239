//! Where an output path leads.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::dir::Dir;
use crate::sys::geteuid;

/// Where an output path leads.
pub(super) enum OutputTarget {
    /// A name in a directory, which is no symbolic link.
    Name {
        dir: Dir,
        name: OsString,
        /// What has the name now.
        existing: Option<FileStat>,
    },
    /// One of our own descriptors, by way of /dev/stdout, /dev/fd/N or /proc/self/fd/N. The file
    /// behind it has its own position, and perhaps no name.
    Descriptor(i32),
}

/// Resolves a path, following symbolic links also to what does not exist yet. From here on the
/// result does not depend on the path any more: the directory is open.
pub(super) fn resolve(path: &Path) -> Result<OutputTarget, Errno> {
    const MAX_LINKS: usize = 40; // as the kernel: path_resolution(7)
    let descriptors = Dir::open_at(AT_FDCWD, Path::new("/proc/self/fd")).ok();
    let (mut path, mut base) = (path.to_owned(), None);
    for _ in 0..MAX_LINKS {
        let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned(); // "/" or ".."
        let dir = Dir::open_at(base.as_ref().map_or(AT_FDCWD, Dir::as_fd), parent_of(&path))?;
        if let Some(descriptors) = &descriptors
            && is_same_file(&fstat(descriptors)?, &fstat(&dir)?)
            && let Some(Ok(number)) = name.to_str().map(str::parse)
        {
            return Ok(OutputTarget::Descriptor(number));
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = match openat(&dir, &*name, flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(OutputTarget::Name { dir, name, existing: None }),
            Err(errno) => return Err(errno),
        };
        let existing = fstat(&found)?;
        if !is_type(&existing, SFlag::S_IFLNK) {
            return Ok(OutputTarget::Name { dir, name, existing: Some(existing) });
        }
        check_may_follow(&existing, &fstat(&dir)?)?;
        path = PathBuf::from(readlinkat(&found, "")?);
        base = Some(dir);
    }
    Err(Errno::ELOOP)
}

/// Refuses links that other users made in world-writable directories: the rule of
/// `protected_symlinks`, proc_sys_fs(5), even where it is switched off.
fn check_may_follow(link: &FileStat, dir: &FileStat) -> Result<(), Errno> {
    let is_shared = Mode::from_bits_truncate(dir.st_mode).contains(Mode::S_IWOTH);
    let is_trusted = link.st_uid == geteuid().as_raw() || link.st_uid == dir.st_uid;
    if is_shared && !is_trusted { Err(Errno::EACCES) } else { Ok(()) }
}

pub(super) fn is_type(stat: &FileStat, file_type: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == file_type
}

fn is_same_file(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
