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
use nix::unistd::{UnlinkatFlags, geteuid, getpid, linkat, unlinkat};

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
    /// The same, which stays when it is not completed. Until then nobody else may read it, and
    /// nobody writes it.
    Kept { path: PathBuf, mode: u32, _lock: Option<Flock<File>> },
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
        let existing = fs::symlink_metadata(&target).ok();
        if existing.as_ref().is_some_and(|existing| !existing.is_file()) {
            let flags = libc::O_NOFOLLOW; // what is a link by now was none before
            let file = OpenOptions::new().write(true).custom_flags(flags).open(&target)?;
            return in_place(file, target);
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
            let usual = file.metadata()?.mode();
            file.set_permissions(Permissions::from_mode(mode_after(&existing, usual)))?;
        }
        Ok(Self { file, target, state, unfinished: unfinished.clone() })
    }

    /// Begins a file that stays when it is not completed, not even by `SIGKILL`: as the target's name
    /// with `.part` behind it. What has that name is written over, or gone on with.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); what has the name is no regular file, or not the caller's
    /// alone; another process is writing it this way ([`WouldBlock`](io::ErrorKind::WouldBlock),
    /// flock(2)).
    pub fn create_kept(target: &Path, go_on: bool, unfinished: &Unfinished) -> io::Result<Self> {
        let existing = |path: &Path| fs::symlink_metadata(path).ok();
        let target = match follow(target)? {
            Place::Path(path) if existing(&path).is_none_or(|existing| existing.is_file()) => path,
            _ => return Self::create(target, unfinished), // nothing that can be kept
        };
        let mut path = target.clone().into_os_string();
        path.push(".part");
        let path = PathBuf::from(path);
        let (mut file, _lock) = locked(&path)?;
        if !go_on {
            file.set_len(0)?;
        }
        file.seek(SeekFrom::End(0))?;
        let usual = 0o666 & !umask();
        let mode = existing(&target).map_or(usual, |existing| mode_after(&existing, usual));
        let state = State::Kept { path, mode, _lock };
        Ok(Self { file, target, state, unfinished: unfinished.clone() })
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
            State::Unnamed | State::Named(_) | State::Kept { .. } => {
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
            State::Kept { path, mode, _lock } => {
                self.file.set_permissions(Permissions::from_mode(mode))?;
                fs::rename(path, &self.target)
            }
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
            State::Kept { path, .. } if self.file.metadata().is_ok_and(|file| file.len() == 0) => {
                let _ = fs::remove_file(path);
            }
            _ => {}
        }
    }
}

/// The mode of what takes a file's place. It runs as nobody else, whatever that one did; and of one that
/// is not ours it passes on no right that is not usual, since its owner chose those.
fn mode_after(existing: &fs::Metadata, usual: u32) -> u32 {
    let allowed = if existing.uid() == geteuid().as_raw() { 0o777 } else { usual & 0o777 };
    existing.mode() & allowed
}

/// What new files are not given. Setting it is the only call that reads it: umask(2); proc(5).
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o077)
}

/// A file to go on with, which nobody else can read or write, and no other process of ours writes as
/// long as it is open.
fn locked(path: &Path) -> io::Result<(File, Option<Flock<File>>)> {
    const PRIVATE: u32 = 0o600;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).mode(PRIVATE);
    loop {
        let file = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match options.open(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file.and_then(|file| check_is_ours(&file).map(|()| file))?,
                }
            }
            file => file?,
        };
        let opened = file.metadata()?;
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
            file.set_permissions(Permissions::from_mode(PRIVATE))?;
            return Ok((file, lock));
        }
    }
}

/// What somebody else made, or can reach by another name, may hold anything, and tell them everything.
fn check_is_ours(file: &File) -> io::Result<()> {
    let there = file.metadata()?;
    let trouble = if !there.is_file() {
        "is no regular file"
    } else if there.uid() != geteuid().as_raw() {
        "is another user's"
    } else if there.nlink() > 1 {
        "has another name too"
    } else {
        return Ok(());
    };
    Err(io::Error::other(format!("what is to be gone on with {trouble}")))
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
    let descriptors = resolve(Path::new("/proc/self/fd")).ok();
    let mut path = target.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Ok(Place::Path(path)); // ".." or "/": a folder
        };
        let folder = resolve(folder_of(&path))?;
        if Some(&folder) == descriptors.as_ref()
            && let Some(Ok(number)) = name.to_str().map(str::parse)
        {
            return Ok(Place::Descriptor(number));
        }
        path = folder.join(name);
        match fs::read_link(&path) {
            Ok(link) => {
                check_may_follow(&path, &folder)?;
                path = folder.join(link);
            }
            Err(_) => return Ok(Place::Path(path)),
        }
    }
    Err(Errno::ELOOP.into())
}

/// A folder's path without links, which the kernel follows, as far as it lets us.
fn resolve(folder: &Path) -> io::Result<PathBuf> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    fs::read_link(fd_path(&opened)).or_else(|_| fs::canonicalize(folder)) // without /proc
}

/// In a folder where everybody may make links, those of others lead nobody: `protected_symlinks`,
/// proc_sys_fs(5), whatever it is set to here.
fn check_may_follow(link: &Path, folder: &Path) -> io::Result<()> {
    const EVERYBODYS: u32 = 0o1002;
    let (link, folder) = (fs::symlink_metadata(link)?, fs::metadata(folder)?);
    let is_trusted = link.uid() == geteuid().as_raw() || link.uid() == folder.uid();
    if folder.mode() & EVERYBODYS == EVERYBODYS && !is_trusted {
        return Err(Errno::EACCES.into());
    }
    Ok(())
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
