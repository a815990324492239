use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, close, fchown};

use super::atomic_file::AtomicFile;
use super::cleanup_guard::CleanupGuard;
use super::output_target::{OutputTarget, is_same_file, is_type, resolve};
use crate::client::metadata::Metadata;
use crate::sys::{geteuid, mode_without_acl, was_closed};

/// A file that takes its name when it is complete. Until [`commit`](Self::commit) an older file of
/// that name stays as it is, and dropping this leaves nothing behind.
///
/// What is not a regular file, such as a terminal or a FIFO, is written to in place, and so is the
/// file behind /dev/stdout.
///
/// ```
/// use std::io::Write;
/// use mqfs::client::save::{CleanupGuard, OutputFile};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("new");
/// let mut file = OutputFile::create(&path, &CleanupGuard::default())?;
/// file.write_all(b"content")?;
/// assert!(!path.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read(path)?, b"content");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct OutputFile(Output);

#[derive(Debug)]
enum Output {
    InPlace(File),
    /// `replaces_ours`: it gets the permissions of the file of ours that it replaces.
    Atomic {
        new: AtomicFile,
        replaces_ours: bool,
    },
}

impl OutputFile {
    /// Begins a file. A symbolic link's target is replaced. The new file gets the permissions of an
    /// old one of ours. A link or a FIFO that another user may have put there is refused.
    pub fn create(path: &Path, cleanup: &CleanupGuard) -> io::Result<Self> {
        let OutputTarget { dir, name, existing } = resolve(path)?;
        if existing.is_some_and(|existing| is_type(&existing, SFlag::S_IFLNK)) {
            let number = name.to_str().and_then(|name| name.parse().ok()).ok_or(Errno::ENXIO)?;
            return Ok(Self(Output::InPlace(open_descriptor(number)?)));
        }
        if let Some(existing) = existing.filter(|existing| !is_type(existing, SFlag::S_IFREG)) {
            let file = dir.open_below(&name, OFlag::O_WRONLY, Mode::empty())?;
            if !is_same_file(&existing, &fstat(&file)?) {
                return Err(Errno::ESTALE.into()); // somebody exchanged it meanwhile
            }
            return Ok(Self(Output::InPlace(file.into())));
        }
        let mut new = AtomicFile::create(&dir, &name, None, cleanup)?;
        let mut replaces_ours = false;
        if let Some(existing) = &existing {
            // The old file's ACL can only be seen by opening it.
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            let mode = match dir.open_below(&name, flags, Mode::empty()) {
                Ok(old) if is_same_file(existing, &fstat(&old)?) => {
                    mode_without_acl(old, existing.st_mode, false)
                }
                _ => existing.st_mode & !0o077,
            };
            // This counts as a new file if another user chose its mode (the old file is theirs), or
            // may have linked a file of ours to this name (everybody may write to the directory).
            let others_write = fstat(&dir)?.st_mode & Mode::S_IWOTH.bits() != 0;
            replaces_ours = existing.st_uid == geteuid().as_raw() && !others_write;
            if replaces_ours {
                // If the kernel denies it, choose_mode leaves the rights of the group out.
                let _ = fchown(&new.file, None, Some(Gid::from_raw(existing.st_gid)));
            }
            let allowed = if replaces_ours { 0o777 } else { new.mode()? };
            new.choose_mode(mode & allowed & 0o777, existing.st_gid)?;
        }
        Ok(Self(Output::Atomic { new, replaces_ours }))
    }

    /// Whether this file is the original itself, written in place.
    #[cfg(feature = "programs")]
    pub(crate) fn is(&self, original: &Metadata) -> bool {
        let Output::InPlace(file) = &self.0 else { return false };
        fstat(file).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (original.dev(), original.ino()))
    }

    /// Takes from a new file the rights that the original, whose bytes come next, does not give. A
    /// file that replaces one of ours keeps that one's permissions.
    pub fn limit_rights(&mut self, original: &Metadata) -> io::Result<()> {
        let Output::Atomic { new, replaces_ours: false } = &mut self.0 else { return Ok(()) };
        Ok(new.choose_mode(new.mode()? & original.mode(), original.gid().as_raw())?)
    }

    #[cfg(feature = "programs")]
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self(Output::InPlace(open_descriptor(1)?)))
    }

    /// How many bytes were written. None in a file written in place: they cannot be taken back.
    pub fn position(&self) -> Option<u64> {
        match &self.0 {
            Output::InPlace(_) => None,
            Output::Atomic { new, .. } => (&new.file).stream_position().ok(),
        }
    }

    /// Takes back what was written after a [position](Self::position).
    pub fn rewind(&mut self, position: u64) -> io::Result<()> {
        let mut file = self.file();
        file.set_len(position)?;
        file.seek(SeekFrom::Start(position)).map(drop)
    }

    /// Gives the file its name. A network file system may report a failed write only now: close(2).
    pub fn commit(self) -> io::Result<()> {
        match self.0 {
            Output::InPlace(file) => Ok(close(file)?),
            Output::Atomic { new, .. } => Ok(new.commit()?),
        }
    }

    fn file(&self) -> &File {
        match &self.0 {
            Output::InPlace(file) => file,
            Output::Atomic { new, .. } => &new.file,
        }
    }
}

impl AsFd for OutputFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

fn open_descriptor(number: i32) -> io::Result<File> {
    match number {
        _ if was_closed(number) => Err(Errno::EBADF.into()),
        1 => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        2 => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        _ => OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")),
    }
}
