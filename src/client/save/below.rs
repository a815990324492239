//! A folder below which things are written, and nowhere else, whatever names they are given.
//!
//! Every name is a single one, every call is relative to the descriptor of the folder that it is in,
//! and no link is followed. So neither a name nor a link that came before leads elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::sys::{geteuid, getpid};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, renameat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::unfinished::{Temporary, Unfinished};
use crate::sys::errno_of;

/// A folder to write below. Clones have one descriptor in common.
#[derive(Debug, Clone)]
pub struct Folder(Arc<OwnedFd>);

/// What is kept of what something was; None: nothing, so it becomes what is usual here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) mode: Mode,
    pub(super) mtime: TimeSpec,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    folder: &'a Folder,
    name: &'a OsStr,
    temporary: String,
    file: Option<File>,
    unfinished: Unfinished,
}

impl Folder {
    /// Opens a folder by its path, links and all: it is the caller's own word.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(Arc::new(open(path.as_ref(), flags, Mode::empty())?)))
    }

    /// Makes a folder, or finds the one that is there. If that is ours and cannot be written to, it can
    /// be until it is [closed](Self::close).
    pub(super) fn make_folder(
        &self,
        name: &OsStr,
        mode: Mode,
        unfinished: &Unfinished,
    ) -> Result<Self, Errno> {
        check(name)?;
        let is_new = match mkdirat(&self.0, name, mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let folder = match self.open_below(name, flags, Mode::empty()) {
            Err(Errno::ELOOP) => return Err(Errno::ENOTDIR), // a link, which is not followed
            folder => Self(Arc::new(folder?)),
        };
        let stat = fstat(&folder.0)?;
        let mode = Mode::from_bits_truncate(stat.st_mode);
        if !is_new && stat.st_uid == geteuid().as_raw() && !mode.contains(Mode::S_IRWXU) {
            unfinished.hold().open(&folder.0, mode);
        }
        Ok(folder)
    }

    /// Gives the folder itself what is to be kept, or the mode that it had. One that is not ours stays as
    /// it was.
    pub(super) fn close(&self, kept: Option<&Kept>, unfinished: &Unfinished) {
        let mut held = unfinished.hold();
        let before = held.close(&self.0);
        if let Some(mode) = kept.map(|kept| kept.mode).or(before) {
            let _ = fchmod(&self.0, mode);
        }
        if let Some(kept) = kept {
            let _ = futimens(&self.0, &TimeSpec::UTIME_OMIT, &kept.mtime);
        }
    }

    /// Begins a file, which takes its name when it is complete.
    pub(super) fn begin_file<'a>(
        &'a self,
        name: &'a OsStr,
        kept: Option<&Kept>,
        unfinished: &Unfinished,
    ) -> Result<NewFile<'a>, Errno> {
        check(name)?;
        // What is to be private in the end is private from the beginning.
        let mode = kept.map_or(Mode::from_bits_truncate(0o666), |_| Mode::S_IRUSR | Mode::S_IWUSR);
        let mut held = unfinished.hold();
        let (temporary, file) = self.temporary(mode)?;
        held.temporary = Some(Temporary::Below(Arc::clone(&self.0), temporary.clone()));
        drop(held);
        let (file, unfinished) = (Some(File::from(file)), unfinished.clone());
        Ok(NewFile { folder: self, name, temporary, file, unfinished })
    }

    /// Makes a symbolic link, which nothing here ever follows.
    pub(super) fn make_link(
        &self,
        name: &OsStr,
        target: &Path,
        kept: Option<&Kept>,
        unfinished: &Unfinished,
    ) -> Result<(), Errno> {
        check(name)?;
        let _held = unfinished.hold();
        match symlinkat(target, &self.0, name) {
            Err(Errno::EEXIST) => {
                let mut made = Err(Errno::EEXIST);
                for temporary in temporaries() {
                    made = symlinkat(target, &self.0, temporary.as_str());
                    if made.is_ok() {
                        made = renameat(&self.0, temporary.as_str(), &self.0, name);
                        if made.is_err() {
                            let how = UnlinkatFlags::NoRemoveDir;
                            let _ = unlinkat(&self.0, temporary.as_str(), how);
                        }
                    }
                    if made != Err(Errno::EEXIST) {
                        break;
                    }
                }
                made?;
            }
            made => made?,
        }
        let Some(kept) = kept else { return Ok(()) };
        let how = UtimensatFlags::NoFollowSymlink;
        utimensat(&self.0, name, &TimeSpec::UTIME_OMIT, &kept.mtime, how)
    }

    fn open_below(&self, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat2(&self.0, name, OpenHow::new().flags(flags).mode(mode).resolve(beneath))
    }

    fn temporary(&self, mode: Mode) -> Result<(String, OwnedFd), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        for name in temporaries() {
            match self.open_below(OsStr::new(&name), flags, mode) {
                Err(Errno::EEXIST) => {}
                outcome => return outcome.map(|file| (name, file)),
            }
        }
        Err(Errno::EEXIST)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl NewFile<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let file = self.file.as_mut().ok_or(Errno::EBADF)?;
        file.write_all(bytes).map_err(|error| errno_of(&error))
    }

    /// Gives it its name, in the place of whatever has it, unless that is a folder.
    pub(super) fn commit(mut self, kept: Option<&Kept>) -> Result<(), Errno> {
        if let (Some(file), Some(kept)) = (&self.file, kept) {
            keep(file, kept)?;
        }
        renameat(self.folder, self.temporary.as_str(), self.folder, self.name)?;
        self.file = None;
        self.unfinished.forget();
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.unfinished.remove_temporary();
        }
    }
}

/// Names that tell what made them.
fn temporaries() -> impl Iterator<Item = String> {
    (0..100).map(|n| format!(".mqfs-{}-{n}.part", getpid()))
}

/// A name is a single one: that is what everything here stands on.
fn check(name: &OsStr) -> Result<(), Errno> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(Errno::EINVAL),
        name if name.contains(&b'/') || name.contains(&0) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

fn keep(file: &File, kept: &Kept) -> Result<(), Errno> {
    fchmod(file, kept.mode)?;
    futimens(file, &TimeSpec::UTIME_OMIT, &kept.mtime)
}
