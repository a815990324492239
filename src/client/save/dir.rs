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
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::cleanup_guard::{CleanupGuard, with_temporary_name};
use crate::client::listing::is_entry_name;
use crate::sys::geteuid;

/// A directory to write below. Clones share one descriptor.
#[derive(Debug, Clone)]
pub struct Dir(Arc<OwnedFd>);

/// The attributes that a copy takes over from the original file or directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreservedAttrs {
    pub(super) mode: Mode,
    pub(super) mtime: TimeSpec,
}

impl PreservedAttrs {
    pub(super) fn apply(&self, file: impl AsFd) -> Result<(), Errno> {
        fchmod(&file, self.mode)?;
        futimens(&file, &TimeSpec::UTIME_OMIT, &self.mtime)
    }
}

impl Dir {
    /// Opens a directory by its path. Symbolic links are followed: the path is the caller's own.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::open_at(AT_FDCWD, path.as_ref())?)
    }

    /// Opens a directory by a path relative to `base`. Symbolic links are followed.
    pub(super) fn open_at(base: impl AsFd, path: &Path) -> Result<Self, Errno> {
        // O_PATH: writing into a directory takes no right to read it.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(Arc::new(openat(base, path, flags, Mode::empty())?)))
    }

    /// Opens what a name in the directory stands for. Symbolic links are not followed. The name is
    /// a single component, so openat(2) is enough: old sandboxes deny openat2(2).
    pub(super) fn open_below(
        &self,
        name: &OsStr,
        flags: OFlag,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        openat(self, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode)
    }

    /// Creates a directory, or opens the one that exists. If that is ours and not writable, makes
    /// it writable until it is [closed](Self::close).
    pub(super) fn make_dir(
        &self,
        name: &OsStr,
        mode: Mode,
        cleanup: &CleanupGuard,
    ) -> Result<Self, Errno> {
        check_name(name)?;
        let is_new = match mkdirat(self, name, mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let dir = Self(Arc::new(self.open_below(name, flags, Mode::empty())?));
        let stat = fstat(&dir)?;
        let mode = Mode::from_bits_truncate(stat.st_mode);
        if !is_new && stat.st_uid == geteuid().as_raw() && !mode.contains(Mode::S_IRWXU) {
            cleanup.lock().make_writable(dir.handle(), mode);
        }
        Ok(dir)
    }

    /// Gives the directory itself its final attributes: those of the original, or the mode that it
    /// had before. A directory of another user stays as it is.
    pub(super) fn close(&self, attrs: Option<&PreservedAttrs>, cleanup: &CleanupGuard) {
        let mut held = cleanup.lock();
        let original = held.take_original_mode(&self.0);
        if let Some(mode) = attrs.map(|attrs| attrs.mode).or(original) {
            let _ = fchmod(self, mode);
        }
        if let Some(attrs) = attrs {
            let _ = futimens(self, &TimeSpec::UTIME_OMIT, &attrs.mtime);
        }
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
        match symlinkat(target, self, name) {
            Err(Errno::EEXIST) => self.replace_by_link(name, target)?,
            outcome => outcome?,
        }
        let Some(attrs) = attrs else { return Ok(()) };
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(self, name, &TimeSpec::UTIME_OMIT, &attrs.mtime, flags)
    }

    /// symlinkat(2) does not replace a file, but renameat(2) does.
    fn replace_by_link(&self, name: &OsStr, target: &Path) -> Result<(), Errno> {
        let ((), temporary) = with_temporary_name(|temporary| symlinkat(target, self, temporary))?;
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

/// Checks that a name is a single component.
pub(super) fn check_name(name: &OsStr) -> Result<(), Errno> {
    if is_entry_name(name.as_bytes()) { Ok(()) } else { Err(Errno::EINVAL) }
}
