//! Files that appear complete or not at all, and whole trees of them.

mod below;
mod tree;

pub use below::Folder;
pub use tree::{Event, Options, Report, write_file, write_tree};

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::unistd::{UnlinkatFlags, getpid, linkat, unlinkat};

use crate::text::printable;

/// A file being written that takes its name only when it is [complete](OutputFile::commit). Until
/// then an older file of that name stays as it is, and dropping this leaves nothing.
///
/// Where the file system can (`O_TMPFILE`), the new file has no name before, so not even `SIGKILL`
/// leaves it behind. What is not a regular file, such as a terminal or a FIFO, is written to as it
/// is, and so is what /dev/stdout leads to.
///
/// ```
/// use std::io::Write;
/// use mqfs::client::output::{OutputFile, Unfinished};
///
/// let folder = tempfile::tempdir()?;
/// let name = folder.path().join("new");
/// let mut file = OutputFile::create(&name, &Unfinished::default())?;
/// file.write_all(b"content")?;
/// assert!(!name.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read(name)?, b"content");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    target: PathBuf,
    state: State,
    unfinished: Unfinished,
}

#[derive(Debug)]
enum State {
    /// Written to in place.
    InPlace,
    /// A file without a name.
    Unnamed,
    /// A file with a name of its own beside the target.
    Named(PathBuf),
    /// The same, which stays when it is not completed, and which nobody else writes meanwhile.
    Kept(PathBuf, Option<Flock<File>>),
}

/// What would stay behind if the process ended now; shared with whatever ends it.
#[derive(Debug, Clone, Default)]
pub struct Unfinished(Arc<Mutex<Option<Temporary>>>);

/// A file with a name of our making.
#[derive(Debug)]
enum Temporary {
    At(PathBuf),
    Below(Arc<OwnedFd>, String),
}

impl Unfinished {
    /// Removes the file, if there is one.
    pub fn discard(&self) {
        match self.hold().take() {
            Some(Temporary::At(path)) => drop(fs::remove_file(path)),
            Some(Temporary::Below(folder, name)) => {
                let _ = unlinkat(folder, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
            None => {}
        }
    }

    /// Keeps whoever wants to [`discard`](Self::discard) waiting, for what is over in a moment.
    fn hold(&self) -> MutexGuard<'_, Option<Temporary>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, path: &Path) {
        *self.hold() = Some(Temporary::At(path.to_owned()));
    }

    fn forget(&self) {
        *self.hold() = None;
    }
}

impl OutputFile {
    /// Begins a file. Through a symbolic link it is the link's target that is replaced; a file that
    /// is replaced passes its permissions on.
    ///
    /// # Errors
    /// The folder cannot be written to, or the target is a folder.
    pub fn create(target: &Path, unfinished: &Unfinished) -> io::Result<Self> {
        let in_place = |file, target| {
            let unfinished = unfinished.clone();
            Ok(Self { file, target, state: State::InPlace, unfinished })
        };
        let target = match follow(target)? {
            Place::Descriptor(number) => return in_place(descriptor(number)?, target.to_owned()),
            Place::Path(path) => path,
        };
        let existing = fs::metadata(&target).ok();
        if existing.as_ref().is_some_and(|existing| !existing.is_file()) {
            return in_place(OpenOptions::new().write(true).open(&target)?, target);
        }
        let (file, state) = match unnamed(folder_of(&target)) {
            Ok(file) => (file, State::Unnamed),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                let (file, path) = named(&target)?;
                unfinished.set(&path);
                (file, State::Named(path))
            }
            Err(errno) => return Err(errno.into()),
        };
        if let Some(existing) = existing {
            pass_on_permissions(&existing, &file)?;
        }
        Ok(Self { file, target, state, unfinished: unfinished.clone() })
    }

    /// Begins a file that stays when it is not completed, not even by `SIGKILL`: as the target's name
    /// with `.part` behind it. What has that name is written over, or gone on with.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); what has the name is no regular file; another process is
    /// writing it this way ([`WouldBlock`](io::ErrorKind::WouldBlock), flock(2)).
    pub fn create_kept(target: &Path, go_on: bool, unfinished: &Unfinished) -> io::Result<Self> {
        let path = match follow(target)? {
            Place::Path(path) if fs::metadata(&path).map_or(true, |target| target.is_file()) => {
                path
            }
            _ => return Self::create(target, unfinished), // nothing that can be kept
        };
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let (mut file, lock) = locked(Path::new(&part))?;
        if !go_on {
            file.set_len(0)?;
        }
        file.seek(SeekFrom::End(0))?;
        if let Ok(existing) = fs::metadata(&path) {
            pass_on_permissions(&existing, &file)?;
        }
        let state = State::Kept(part.into(), lock);
        Ok(Self { file, target: path, state, unfinished: unfinished.clone() })
    }

    /// How long what is there by now is, and its CRC-32.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn checksum(&self) -> io::Result<(u64, u32)> {
        let Some(length) = self.position() else { return Ok((0, 0)) };
        let (mut at, mut checksum) = (0, crc32fast::Hasher::new());
        let mut bytes = vec![0; 256 << 10];
        while at < length {
            match self.file.read_at(&mut bytes, at)? {
                0 => break,
                read => {
                    checksum.update(&bytes[..read]);
                    at += read as u64;
                }
            }
        }
        Ok((at, checksum.finalize()))
    }

    /// How many bytes were written; None where they cannot be taken back: in place.
    pub fn position(&self) -> Option<u64> {
        match self.state {
            State::InPlace => None,
            State::Unnamed | State::Named(_) | State::Kept(..) => {
                (&self.file).stream_position().ok()
            }
        }
    }

    /// Takes back what was written behind a [position](Self::position).
    ///
    /// # Errors
    /// Those of ftruncate(2) and lseek(2).
    pub fn rewind(&mut self, position: u64) -> io::Result<()> {
        self.file.set_len(position)?;
        self.file.seek(SeekFrom::Start(position)).map(drop)
    }

    /// Gives the file its name, in the place of one that has it.
    ///
    /// # Errors
    /// Those of linkat(2) and rename(2).
    pub fn commit(mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::InPlace) {
            State::InPlace => Ok(()),
            State::Named(path) => self.rename(path),
            State::Kept(path, _lock) => fs::rename(path, &self.target),
            State::Unnamed => match link(&self.file, &self.target) {
                Ok(()) => Ok(()),
                Err(Errno::EEXIST) => {
                    let path = self.link_beside()?;
                    self.rename(path)
                }
                Err(errno) => Err(errno.into()),
            },
        }
    }

    /// linkat does not replace, rename does; so the file gets a name beside the target first.
    fn link_beside(&self) -> io::Result<PathBuf> {
        for path in names_beside(&self.target) {
            self.unfinished.set(&path);
            match link(&self.file, &path) {
                Ok(()) => return Ok(path),
                Err(Errno::EEXIST) => {}
                Err(errno) => {
                    self.unfinished.forget();
                    return Err(errno.into());
                }
            }
        }
        self.unfinished.forget();
        Err(Errno::EEXIST.into())
    }

    fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        let renamed = fs::rename(&path, &self.target);
        match renamed {
            Ok(()) => self.unfinished.forget(),
            Err(_) => self.state = State::Named(path), // for drop to remove
        }
        renamed
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        match &self.state {
            State::Named(_) => self.unfinished.discard(),
            State::Kept(path, _) if self.file.metadata().is_ok_and(|file| file.len() == 0) => {
                let _ = fs::remove_file(path);
            }
            _ => {}
        }
    }
}

/// Not to run as its owner: what was right for the old content need not be for the new one.
fn pass_on_permissions(existing: &fs::Metadata, file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(existing.permissions().mode() & 0o777))
}

/// A file to go on with, which is nobody else's as long as it is open.
fn locked(path: &Path) -> io::Result<(File, Option<Flock<File>>)> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .mode(0o666)
            .open(path)?;
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Err(io::Error::other("what is to be gone on with is no regular file"));
        }
        let lock = match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Some(lock),
            Err((_, Errno::EWOULDBLOCK)) => {
                let text = format!("another process is writing {}", printable(path));
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(_) => None, // a file system that knows no locks
        };
        // Whoever had the lock may have given the file its name meanwhile: then it is complete.
        let is_there =
            |there: fs::Metadata| (there.dev(), there.ino()) == (opened.dev(), opened.ino());
        if fs::symlink_metadata(path).is_ok_and(is_there) {
            return Ok((file, lock));
        }
    }
}

/// Where an output leads.
enum Place {
    /// A path whose last component is no link.
    Path(PathBuf),
    /// One of our own descriptors, by way of /dev/stdout, /dev/fd/N or /proc/self/fd/N: what it is
    /// open on has its own place to write at, and perhaps no name.
    Descriptor(i32),
}

/// Follows links to where they lead, also if nothing is there.
fn follow(target: &Path) -> io::Result<Place> {
    const MOST_LINKS: usize = 40; // as the kernel: path_resolution(7)
    let descriptors = fs::canonicalize("/proc/self/fd").ok();
    let mut path = target.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Ok(Place::Path(path)); // ".." or "/": a folder
        };
        let folder = fs::canonicalize(folder_of(&path))?;
        if Some(&folder) == descriptors.as_ref()
            && let Some(Ok(number)) = name.to_str().map(str::parse)
        {
            return Ok(Place::Descriptor(number));
        }
        path = folder.join(name);
        match fs::read_link(&path) {
            Ok(link) => path = folder.join(link),
            Err(_) => return Ok(Place::Path(path)),
        }
    }
    Err(Errno::ELOOP.into())
}

fn descriptor(number: i32) -> io::Result<File> {
    match number {
        1 => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        2 => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        _ => OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")),
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `O_TMPFILE`; naming it later takes /proc, so without it there is no such file.
fn unnamed(folder: &Path) -> Result<File, Errno> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o666)
        .open(folder)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    if fd_path(&file).exists() { Ok(file) } else { Err(Errno::EOPNOTSUPP) }
}

fn named(target: &Path) -> io::Result<(File, PathBuf)> {
    for path in names_beside(target) {
        match OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|file| (file, path)),
        }
    }
    Err(Errno::EEXIST.into())
}

/// Names beside the target that tell what made them.
fn names_beside(target: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = folder_of(target).to_owned();
    (0..100).map(move |n| folder.join(format!(".mqfs-{}-{n}.part", getpid())))
}

fn link(file: &File, path: &Path) -> Result<(), Errno> {
    linkat(AT_FDCWD, &fd_path(file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
}

fn fd_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
