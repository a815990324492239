//! Files that appear complete or not at all, and whole trees of them.

mod below;
mod place;
mod tree;
mod unfinished;

pub use below::Folder;
pub use tree::{Event, Options, Report, write_file, write_tree};
pub use unfinished::Unfinished;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::sys::{geteuid, getpid};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use self::place::{Place, folder_of, follow};
use self::unfinished::Temporary;

/// A file being written that takes its name only when it is [complete](OutputFile::commit). Until
/// then an older file of that name stays as it is, and dropping this leaves nothing.
///
/// Where the file system can (`O_TMPFILE`), the new file has no name before, so not even `SIGKILL`
/// leaves it behind. What is not a regular file, such as a terminal or a FIFO, is written to as it
/// is, and so is what /dev/stdout leads to.
///
/// ```
/// use std::io::Write;
/// use mqfs::client::save::{OutputFile, Unfinished};
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
                let mut held = unfinished.hold(); // a signal ends the program before this, or behind it
                let (file, path) = named(&target)?;
                held.temporary = Some(Temporary::At(path.clone()));
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

    /// How many bytes were written; None where they cannot be taken back: in place.
    pub fn position(&self) -> Option<u64> {
        match self.state {
            State::InPlace => None,
            State::Unnamed | State::Named(_) => (&self.file).stream_position().ok(),
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
        if let State::Named(_) = self.state {
            self.unfinished.remove_temporary();
        }
    }
}

/// The mode of what takes a file's place. It runs as nobody else, whatever that one did; and of one that
/// is not ours it passes on no right that is not usual, since its owner chose those.
fn mode_after(existing: &fs::Metadata, usual: u32) -> u32 {
    let allowed = if existing.uid() == geteuid().as_raw() { 0o777 } else { usual & 0o777 };
    existing.mode() & allowed
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn descriptor(number: i32) -> io::Result<File> {
    match number {
        1 => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        2 => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
        _ => OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")),
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
