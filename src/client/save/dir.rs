//! Confines all writing to one directory, whatever names a server sends.
//!
//! Every name is a single component, every call is relative to the directory's descriptor, and no
//! symbolic link is followed. So neither a name nor a link that was written before leads elsewhere.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::cleanup_guard::CleanupGuard;
use crate::client::listing::is_entry_name;
use crate::sys::{common_rights, geteuid, getpid};

/// A directory to write below. Clones share one descriptor.
#[derive(Debug, Clone)]
pub struct Dir(Arc<OwnedFd>);

/// The attributes that a copy takes over from the original file or directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreservedAttrs {
    pub(super) mode: u32,
    pub(super) gid: u32,
    pub(super) mtime: TimeSpec,
}

impl PreservedAttrs {
    pub(super) fn apply(&self, file: impl AsFd) -> Result<(), Errno> {
        fchmod(&file, safe_mode(&file, self.mode, self.gid)?)?;
        futimens(&file, &TimeSpec::UTIME_OMIT, &self.mtime)
    }
}

/// The mode for a copy of an original with this mode and group, so that nobody gets more rights. If
/// the copy has another group, or an ACL from its directory, group and others get what both have.
pub(super) fn safe_mode(copy: impl AsFd, mode: u32, gid: u32) -> Result<Mode, Errno> {
    let (stat, group, others) = (fstat(&copy)?, mode >> 3 & 7, mode & 7);
    let is_safe = group == others || stat.st_gid == gid && common_rights(&copy).is_none();
    let both = group & others;
    let mode = if is_safe { mode } else { mode & !0o077 | both << 3 | both };
    // Set-id bits are not copied. A set-group-id bit that comes from the directory above stays.
    let mode = mode & 0o1777 | stat.st_mode & Mode::S_ISGID.bits();
    Ok(Mode::from_bits_truncate(mode))
}

impl Dir {
    /// Opens a directory by its path. Symbolic links are followed: the path is the caller's own.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::open_at(AT_FDCWD, path.as_ref())?)
    }

    /// Opens a directory by a path relative to `base`. Symbolic links are followed.
    pub(super) fn open_at(base: impl AsFd, path: &Path) -> Result<Self, Errno> {
        // O_PATH: writing into a directory takes no right to read it.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(Arc::new(openat(base, path, flags, Mode::empty())?)))
    }

    /// Opens a name: a single component, so openat(2) is enough. Old sandboxes deny openat2(2).
    pub(super) fn open_below(
        &self,
        name: &OsStr,
        flags: OFlag,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        openat(self, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode)
    }

    /// Creates a directory, or opens the one that exists. Returns also whether it is new.
    pub(super) fn make_dir(&self, name: &OsStr, mode: Mode) -> Result<(Self, bool), Errno> {
        check_name(name)?;
        let is_new = match mkdirat(self, name, mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        Ok((Self(Arc::new(self.open_below(name, flags, Mode::empty())?)), is_new))
    }

    /// Makes the directory writable, if it is ours, until it is [closed](Self::close).
    pub(super) fn make_writable(&self, stat: &FileStat, cleanup: &CleanupGuard) {
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let mut held = cleanup.lock();
        if stat.st_uid == geteuid().as_raw()
            && !mode.contains(Mode::S_IRWXU)
            && fchmod(self, mode | Mode::S_IRWXU).is_ok()
        {
            held.opened.push((self.handle(), mode));
        }
    }

    /// Gives the directory itself its final attributes: those of the original, or the mode that it
    /// had before. A directory of another user stays as it is.
    pub(super) fn close(&self, attrs: Option<&PreservedAttrs>, cleanup: &CleanupGuard) {
        let mut held = cleanup.lock();
        let opened = held.opened.iter().rposition(|(opened, _)| Arc::ptr_eq(opened, &self.0));
        let original = opened.map(|opened| held.opened.swap_remove(opened).1);
        let _ = match (attrs, original) {
            (Some(attrs), _) => attrs.apply(self),
            (None, Some(mode)) => fchmod(self, mode),
            (None, None) => Ok(()),
        };
    }

    /// Creates a symbolic link, which replaces a file or another link.
    pub(super) fn make_link(
        &self,
        name: &OsStr,
        target: &Path,
        attrs: Option<&PreservedAttrs>,
        cleanup: &CleanupGuard,
    ) -> Result<(), Errno> {
        check_name(name)?;
        let _held = cleanup.lock(); // until the temporary name is gone
        self.make_or_replace(name, |name| symlinkat(target, self, name))?;
        let Some(attrs) = attrs else { return Ok(()) };
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(self, name, &TimeSpec::UTIME_OMIT, &attrs.mtime, flags)
    }

    /// Makes or replaces a file or a link. Neither linkat(2) nor symlinkat(2) replaces one.
    pub(super) fn make_or_replace(
        &self,
        name: &OsStr,
        mut make: impl FnMut(&OsStr) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match make(name) {
            Err(Errno::EEXIST) => {}
            outcome => return outcome,
        }
        let ((), temporary) = with_temporary_name(make)?;
        renameat(self, temporary.as_str(), self, name).inspect_err(|_| {
            let _ = unlinkat(self, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        })
    }

    pub(super) fn handle(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(super) fn check_name(name: &OsStr) -> Result<(), Errno> {
    if is_entry_name(name.as_bytes()) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Calls `make` with temporary names, which contain our pid, until one is free.
pub(super) fn with_temporary_name<T>(
    mut make: impl FnMut(&OsStr) -> Result<T, Errno>,
) -> Result<(T, String), Errno> {
    for n in 0..100 {
        let name = format!(".mqfs-{}-{n}.part", getpid());
        match make(name.as_ref()) {
            Err(Errno::EEXIST) => {}
            outcome => return outcome.map(|made| (made, name)),
        }
    }
    Err(Errno::EEXIST)
}
