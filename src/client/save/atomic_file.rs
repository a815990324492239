//! Writes every file: a file takes its name when it is complete.
//!
//! Where the file system supports it, the file has no name before (`O_TMPFILE`, open(2)), so that
//! not even SIGKILL leaves it behind. Elsewhere, and while it replaces another file, it has a
//! temporary name, which a [`CleanupGuard`] knows.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::cleanup_guard::CleanupGuard;
use super::dir::{Dir, PreservedAttrs, check_name, safe_mode, with_temporary_name};

/// A file that is being written. If it is dropped before [`commit`](Self::commit), it disappears,
/// and an older file of its name stays as it is.
#[derive(Debug)]
pub(super) struct AtomicFile {
    dir: Dir,
    name: OsString,
    pub(super) file: File,
    temporary: Option<String>,
    /// The mode that it gets with its name. None: the file has its mode already.
    mode: Option<Mode>,
    attrs: Option<PreservedAttrs>,
    cleanup: CleanupGuard,
}

impl AtomicFile {
    /// Begins a file that gets this name, and these attributes or the usual mode, less the umask.
    pub(super) fn create(
        dir: &Dir,
        name: &OsStr,
        attrs: Option<PreservedAttrs>,
        cleanup: &CleanupGuard,
    ) -> Result<Self, Errno> {
        check_name(name)?;
        // A file that gets attributes at the end may become private, so it is private until then.
        let unnamed = if attrs.is_some() { 0o600 } else { 0o666 };
        let (file, temporary, mode) = match create_unnamed(dir, unnamed) {
            Ok(file) => (file, None, None),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                let usual = attrs.is_none().then(|| usual_mode(dir, cleanup)).transpose()?;
                let (file, temporary) = create_named(dir, cleanup)?;
                (file, Some(temporary), usual)
            }
            Err(errno) => return Err(errno),
        };
        let (dir, name, cleanup) = (dir.clone(), name.to_owned(), cleanup.clone());
        Ok(Self { dir, name, file, temporary, mode, attrs, cleanup })
    }

    /// The mode that it will have.
    pub(super) fn mode(&self) -> Result<u32, Errno> {
        self.mode.map_or_else(|| Ok(fstat(&self.file)?.st_mode), |mode| Ok(mode.bits()))
    }

    /// Gives it another mode with its name, less what is not [safe](safe_mode) for a copy.
    pub(super) fn choose_mode(&mut self, mode: u32, gid: u32) -> Result<(), Errno> {
        self.mode = Some(safe_mode(&self.file, mode, gid)?);
        Ok(())
    }

    /// Gives the file its attributes and its name. It replaces another file or a link.
    pub(super) fn commit(mut self) -> Result<(), Errno> {
        match (&self.attrs, self.mode) {
            (Some(attrs), _) => attrs.apply(&self.file)?,
            (None, Some(mode)) => fchmod(&self.file, mode)?,
            (None, None) => {}
        }
        let mut held = self.cleanup.lock(); // until the temporary name is gone
        if let Some(temporary) = &self.temporary {
            renameat(&self.dir, temporary.as_str(), &self.dir, &*self.name)?;
            held.forget_temporary(&self.dir.handle(), temporary);
            self.temporary = None;
            return Ok(());
        }
        self.dir.make_or_replace(&self.name, |name| link(&self.file, &self.dir, name))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let mut held = self.cleanup.lock();
            let _ = unlinkat(&self.dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
            held.forget_temporary(&self.dir.handle(), temporary);
        }
    }
}

/// Creates a file without a name. Naming it later may need /proc, so without /proc this fails.
fn create_unnamed(dir: &Dir, mode: u32) -> Result<File, Errno> {
    static HAS_PROC: OnceLock<bool> = OnceLock::new();
    if !*HAS_PROC.get_or_init(|| Path::new("/proc/self/fd").exists()) {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE;
    dir.open_below(OsStr::new("."), flags, Mode::from_bits_truncate(mode)).map(File::from)
}

/// Creates a file under a temporary name. Its content may be a secret, so only its owner can open
/// it.
fn create_named(dir: &Dir, cleanup: &CleanupGuard) -> Result<(File, String), Errno> {
    let mut held = cleanup.lock();
    let (file, name) = create(dir, 0o600)?;
    held.temporaries.push((dir.handle(), name.clone()));
    Ok((file, name))
}

/// The mode of a new file, read from an empty one: it shows the umask and the directory's default
/// ACL. The umask alone cannot be read without changing it for all threads: umask(2).
fn usual_mode(dir: &Dir, cleanup: &CleanupGuard) -> Result<Mode, Errno> {
    let _held = cleanup.lock(); // no signal ends the program while the file is there
    let (empty, name) = create(dir, 0o666)?;
    unlinkat(dir, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
    Ok(Mode::from_bits_truncate(fstat(&empty)?.st_mode & 0o777))
}

fn create(dir: &Dir, mode: u32) -> Result<(File, String), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mode = Mode::from_bits_truncate(mode);
    let (file, name) = with_temporary_name(|name| dir.open_below(name, flags, mode))?;
    Ok((file.into(), name))
}

fn link(file: &File, dir: &Dir, name: &OsStr) -> Result<(), Errno> {
    match linkat(file, "", dir, name, AtFlags::AT_EMPTY_PATH) {
        // linkat(2): before Linux 6.10 this takes CAP_DAC_READ_SEARCH.
        Err(Errno::ENOENT) => {
            let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(AT_FDCWD, unnamed.as_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW)
        }
        outcome => outcome,
    }
}
