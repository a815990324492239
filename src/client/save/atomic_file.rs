//! The one writer of files: a file takes its name when it is complete.
//!
//! Where the file system supports it, the file has no name before (`O_TMPFILE`, open(2)), so that
//! not even SIGKILL leaves it behind. Elsewhere, and while it replaces another file, it has a
//! temporary name, which a [`CleanupGuard`] knows.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use super::cleanup_guard::CleanupGuard;
use super::dir::{Dir, check_name};
use super::temporary_name::with_temporary_name;
use crate::sys::errno_of;

/// A file that is being written. If it is dropped before [`commit`](Self::commit), it disappears,
/// and an older file of its name stays as it is.
#[derive(Debug)]
pub(super) struct AtomicFile {
    dir: Dir,
    name: OsString,
    pub(super) file: File,
    temporary: Option<String>,
    cleanup: CleanupGuard,
}

impl AtomicFile {
    /// Begins a file with this mode, less the umask, which will have this name in the directory.
    pub(super) fn create(
        dir: &Dir,
        name: &OsStr,
        mode: Mode,
        cleanup: &CleanupGuard,
    ) -> Result<Self, Errno> {
        check_name(name)?;
        let (file, temporary) = match create_unnamed(dir, mode) {
            Ok(file) => (file, None),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
                let mut held = cleanup.lock();
                let (file, temporary) = with_temporary_name(|name| {
                    dir.open_below(OsStr::new(name), flags, mode).map(File::from)
                })?;
                held.temporary = Some((dir.handle(), temporary.clone()));
                (file, Some(temporary))
            }
            Err(errno) => return Err(errno),
        };
        let (dir, name, cleanup) = (dir.clone(), name.to_owned(), cleanup.clone());
        Ok(Self { dir, name, file, temporary, cleanup })
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.file.write_all(bytes).map_err(|error| errno_of(&error))
    }

    /// Gives the file its name. It replaces another file or a link, but no directory.
    pub(super) fn commit(mut self) -> Result<(), Errno> {
        if self.temporary.is_none() {
            match link(&self.file, &self.dir, &self.name) {
                Err(Errno::EEXIST) => self.link_temporarily()?,
                outcome => return outcome,
            }
        }
        if let Some(temporary) = &self.temporary {
            renameat(&self.dir, temporary.as_str(), &self.dir, &*self.name)?;
        }
        self.temporary = None;
        self.cleanup.forget_temporary();
        Ok(())
    }

    /// Links the file under a temporary name: linkat(2) does not replace a file, but renameat(2)
    /// does.
    fn link_temporarily(&mut self) -> Result<(), Errno> {
        let mut held = self.cleanup.lock();
        let ((), temporary) =
            with_temporary_name(|name| link(&self.file, &self.dir, OsStr::new(name)))?;
        held.temporary = Some((self.dir.handle(), temporary.clone()));
        drop(held);
        self.temporary = Some(temporary);
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.temporary.is_some() {
            self.cleanup.remove_temporary();
        }
    }
}

/// Creates a file without a name. Naming it later takes /proc, so without /proc there is no such
/// file.
fn create_unnamed(dir: &Dir, mode: Mode) -> Result<File, Errno> {
    static HAS_PROC: OnceLock<bool> = OnceLock::new();
    if !*HAS_PROC.get_or_init(|| Path::new("/proc/self/fd").exists()) {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE;
    dir.open_below(OsStr::new("."), flags, mode).map(File::from)
}

fn link(file: &File, dir: &Dir, name: &OsStr) -> Result<(), Errno> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, unnamed.as_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW)
}
