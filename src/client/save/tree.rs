//! Writing a tree below a directory.

use std::ffi::OsStr;
use std::io::BufRead;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;

use super::atomic_file::AtomicFile;
use super::cleanup_guard::CleanupGuard;
use super::dir::{Dir, PreservedAttrs};
use crate::client::error::{Cause, Error, ErrorKind};
use crate::client::metadata::{FileType, Metadata};
use crate::client::transfer::Transfer;
use crate::client::walk::{Walk, WalkEntry};

/// Options for [`write_tree`] and [`write_file`].
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    no_preserve: bool,
    cleanup: CleanupGuard,
}

impl WriteOptions {
    /// Whether to copy modes and modification times. The default is true; otherwise new files get
    /// the usual mode and the current time.
    #[must_use]
    pub fn preserve(mut self, yes: bool) -> Self {
        self.no_preserve = !yes;
        self
    }

    /// The guard to keep up to date, for a process that may end early.
    #[must_use]
    pub fn cleanup_guard(mut self, guard: &CleanupGuard) -> Self {
        self.cleanup = guard.clone();
        self
    }
}

/// Progress of a tree.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Bytes of a file arrived.
    Bytes(usize),
    /// An entry was written completely.
    Done {
        /// The path below the top.
        path: &'a Path,
        /// The entry's metadata.
        metadata: &'a Metadata,
    },
    /// A file changed while the server read it: the copy may be a mixture of old and new.
    Changed {
        /// The path below the top.
        path: &'a Path,
    },
    /// An entry could not be written. The others are not affected.
    Problem {
        /// The path below the top.
        path: &'a Path,
        /// Why.
        why: String,
    },
}

/// A summary of what was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many files were written completely.
    pub files: u64,
    /// How many directories were written.
    pub directories: u64,
    /// How many symbolic links were written.
    pub links: u64,
    /// How many bytes the files hold.
    pub bytes: u64,
    /// How many entries are missing.
    pub problems: u64,
}

/// Writes a tree below a directory, under a name; without a name, writes the entries of the tree's
/// top into the directory itself.
///
/// Nothing outside the directory is written: every name is a single component, and no symbolic link
/// is followed. Files and links replace what has their name; directories keep what they hold. Modes
/// and times are copied, except set-user-id and set-group-id bits, since owners are not. Special
/// files are not copied.
///
/// # Errors
/// The rest of the tree cannot be received or written. Failures of single entries are
/// [`Event::Problem`]s.
pub fn write_tree(
    walk: &mut Walk,
    dir: &Dir,
    name: Option<&OsStr>,
    options: &WriteOptions,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Report, Error> {
    let mut writer = Writer {
        dir: dir.clone(),
        name,
        options,
        on_event,
        levels: Vec::new(),
        buffer: Vec::new(),
        report: Report::default(),
    };
    let outcome = writer.write_all(walk);
    writer.leave(0); // also after an error: gives the open directories their attributes
    outcome.map(|()| writer.report)
}

/// Writes a file into a directory, under a name.
///
/// # Errors
/// Those of the transfer, and [`ErrorKind::Output`].
pub fn write_file(
    transfer: &mut Transfer,
    dir: &Dir,
    name: &OsStr,
    options: &WriteOptions,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Report, Error> {
    let failed = |errno| Error::from(Cause::Output(errno));
    let attrs = transfer.metadata().and_then(|metadata| preserved(&metadata, options));
    let mut file = AtomicFile::create(dir, name, attrs, &options.cleanup).map_err(failed)?;
    read(transfer, u64::MAX, on_event, |bytes| file.write_all(bytes).map_err(failed))?;
    file.commit().map_err(failed)?;
    if transfer.has_changed() {
        on_event(Event::Changed { path: Path::new("") });
    }
    Ok(Report { files: 1, bytes: transfer.received(), ..Report::default() })
}

/// Reads to the end, or until it has read `enough` bytes, and returns how many it read.
fn read<E: From<Error>>(
    source: &mut impl BufRead,
    enough: u64,
    on_event: &mut dyn FnMut(Event<'_>),
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut total = 0;
    while total < enough {
        let bytes = source.fill_buf().map_err(Error::from_read)?;
        if bytes.is_empty() {
            break;
        }
        take(bytes)?;
        let count = bytes.len();
        source.consume(count);
        total += count as u64;
        on_event(Event::Bytes(count));
    }
    Ok(total)
}

/// The attributes to copy. Without the original's owner, set-id bits would run the file as us.
fn preserved(metadata: &Metadata, options: &WriteOptions) -> Option<PreservedAttrs> {
    (!options.no_preserve).then(|| PreservedAttrs {
        mode: Mode::from_bits_truncate(metadata.mode() & 0o1777),
        mtime: TimeSpec::new(metadata.mtime(), metadata.mtime_nsec().into()),
    })
}

struct Writer<'a> {
    dir: Dir,
    name: Option<&'a OsStr>,
    options: &'a WriteOptions,
    on_event: &'a mut dyn FnMut(Event<'_>),
    levels: Vec<Level>,
    /// The content of a small file.
    buffer: Vec<u8>,
    report: Report,
}

/// A directory of the tree that is being written.
struct Level {
    /// None if it could not be created.
    dir: Option<Dir>,
    attrs: Option<PreservedAttrs>,
}

/// Why an entry was not written.
enum Trouble {
    /// Its bytes did not arrive.
    Source(Error),
    /// A system call failed here.
    Errno(Errno),
    /// Not worth a report: the server sends the entry again, or its directory was already reported.
    Known,
    /// It is a special file.
    Special(FileType),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Writer<'_> {
    /// A file of at most this many bytes is created only after it arrived and was verified.
    const SMALL: u64 = 256 << 10;

    fn write_all(&mut self, walk: &mut Walk) -> Result<(), Error> {
        while let Some(entry) = walk.next_entry()? {
            self.write(entry)?;
        }
        Ok(())
    }

    fn write(&mut self, mut entry: WalkEntry<'_>) -> Result<(), Error> {
        self.leave(entry.depth());
        let written = match entry.metadata() {
            Ok(metadata) => self.write_entry(&mut entry, &metadata),
            Err(error) => Err(error.into()),
        };
        let why = match written {
            Ok(()) | Err(Trouble::Known) => return Ok(()),
            Err(Trouble::Source(error)) if entry.is_fatal() => return Err(error),
            Err(Trouble::Source(error)) => error.to_string(),
            Err(Trouble::Errno(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EIO))) => {
                return Err(Cause::Output(errno).into());
            }
            Err(Trouble::Errno(errno)) => errno.desc().to_owned(),
            Err(Trouble::Special(kind)) => format!("Is a {kind}, which is not copied"),
        };
        self.report.problems += 1;
        (self.on_event)(Event::Problem { path: entry.path(), why });
        Ok(())
    }

    /// Closes the directories at this depth and below. They are complete.
    fn leave(&mut self, depth: usize) {
        while self.levels.len() > depth {
            if let Some(Level { dir: Some(dir), attrs }) = self.levels.pop() {
                dir.close(attrs.as_ref(), &self.options.cleanup);
            }
        }
    }

    fn write_entry(
        &mut self,
        entry: &mut WalkEntry<'_>,
        metadata: &Metadata,
    ) -> Result<(), Trouble> {
        let name = match entry.depth() {
            0 => self.name.map(OsStr::to_owned),
            _ => Some(entry.file_name().to_owned()),
        };
        let Some(name) = name else {
            if !metadata.is_dir() {
                return Err(Errno::EISDIR.into());
            }
            self.levels.push(Level { dir: Some(self.dir.clone()), attrs: None });
            return Ok(());
        };
        if metadata.is_dir() {
            self.write_dir(&name, metadata)?;
        } else if metadata.is_file() {
            self.write_file(entry, &name, metadata)?;
        } else if let Some(target) = entry.link_target() {
            let attrs = preserved(metadata, self.options);
            self.parent()?.make_link(&name, target, attrs.as_ref(), &self.options.cleanup)?;
            self.report.links += 1;
        } else {
            return Err(Trouble::Special(metadata.file_type()));
        }
        (self.on_event)(Event::Done { path: entry.path(), metadata });
        Ok(())
    }

    /// The directory that the entry belongs into.
    fn parent(&self) -> Result<&Dir, Trouble> {
        match self.levels.last() {
            None => Ok(&self.dir),
            Some(level) => level.dir.as_ref().ok_or(Trouble::Known),
        }
    }

    fn write_dir(&mut self, name: &OsStr, metadata: &Metadata) -> Result<(), Trouble> {
        let attrs = preserved(metadata, self.options);
        // Whatever its final mode is, we must write to it first.
        let mode = attrs.map_or(Mode::from_bits_truncate(0o777), |_| Mode::S_IRWXU);
        let made = self.parent().and_then(|parent| {
            parent.make_dir(name, mode, &self.options.cleanup).map_err(Trouble::Errno)
        });
        let (dir, outcome) = match made {
            Ok(dir) => (Some(dir), Ok(())),
            Err(trouble) => (None, Err(trouble)),
        };
        self.levels.push(Level { dir, attrs });
        self.report.directories += u64::from(outcome.is_ok());
        outcome
    }

    fn write_file(
        &mut self,
        entry: &mut WalkEntry<'_>,
        name: &OsStr,
        metadata: &Metadata,
    ) -> Result<(), Trouble> {
        let attrs = preserved(metadata, self.options);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut bytes = read(entry, Self::SMALL + 1, self.on_event, |bytes| {
            buffer.extend_from_slice(bytes);
            Ok::<_, Trouble>(())
        })?;
        let mut file = AtomicFile::create(self.parent()?, name, attrs, &self.options.cleanup)?;
        file.write_all(&buffer)?;
        self.buffer = buffer;
        bytes += read(entry, u64::MAX, self.on_event, |bytes| {
            file.write_all(bytes).map_err(Trouble::Errno)
        })?;
        file.commit()?;
        self.report.files += 1;
        self.report.bytes += bytes;
        if entry.has_changed() {
            (self.on_event)(Event::Changed { path: entry.path() });
        }
        Ok(())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        // The server sends a file again that changed while it was away.
        if error.kind() == ErrorKind::FileChanged { Self::Known } else { Self::Source(error) }
    }
}
