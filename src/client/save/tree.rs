//! A tree written below a folder.

use std::ffi::OsStr;
use std::io::BufRead;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;

use super::Unfinished;
use super::below::{Folder, Kept};
use crate::client::{Error, Metadata, Transfer, Walk, WalkEntry};
use crate::wire::Kind;

/// How a tree is to be written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Whether modes and times become what is usual here, instead of what they are there.
    pub no_preserve: bool,
    /// What is to be removed when something ends the process on the way.
    pub unfinished: Unfinished,
}

/// What happens on the way.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Bytes of a file arrived.
    Bytes(usize),
    /// An entry is there, complete.
    Done {
        /// Where it is below the top.
        path: &'a Path,
        /// What it is.
        metadata: &'a Metadata,
    },
    /// A file changed while it was read: it may be of both states.
    Changed {
        /// Where it is below the top.
        path: &'a Path,
    },
    /// An entry is not there. The others come nevertheless.
    Problem {
        /// Where it is below the top.
        path: &'a Path,
        /// Why.
        why: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many files are there, complete.
    pub files: u64,
    /// How many directories.
    pub directories: u64,
    /// How many symbolic links.
    pub links: u64,
    /// How many bytes the files have.
    pub bytes: u64,
    /// How many entries are not there.
    pub problems: u64,
}

/// Writes a tree below a folder, under a name, or, without one, a directory's entries right there.
///
/// Names that lead out of the folder do not exist: each is a single one, and no link is followed.
/// What has the name of a file or a link is replaced, a folder is gone on with. Directories, regular
/// files and links are made; modes and times are kept, but for the set-user-id and set-group-id bits,
/// since owners are not.
///
/// # Errors
/// What is fatal to the rest of the tree. What is not is an [`Event::Problem`].
pub fn write_tree(
    walk: &mut Walk,
    folder: &Folder,
    name: Option<&OsStr>,
    options: &Options,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Report, Error> {
    let mut writer = Writer {
        folder: folder.clone(),
        name,
        options,
        on_event,
        levels: Vec::new(),
        buffer: Vec::new(),
        report: Report::default(),
    };
    let outcome = writer.write_all(walk);
    writer.leave(0); // the directories that it was in are as they are to be, if not all is in them
    outcome.map(|()| writer.report)
}

/// Writes a file below a folder, under a name.
///
/// # Errors
/// Those of the transfer, and [`Error::Output`].
pub fn write_file(
    transfer: &mut Transfer,
    folder: &Folder,
    name: &OsStr,
    options: &Options,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Report, Error> {
    let failed = |errno: Errno| Error::Output(errno.desc().to_owned());
    let kept = transfer.meta().map(|meta| kept(meta.mode, meta.mtime));
    let kept = kept.filter(|_| !options.no_preserve);
    let mut file = folder.begin_file(name, kept.as_ref(), &options.unfinished).map_err(failed)?;
    loop {
        let bytes = transfer.fill_buf().map_err(Error::of_read)?;
        if bytes.is_empty() {
            break;
        }
        file.write(bytes).map_err(failed)?;
        let count = bytes.len();
        transfer.consume(count);
        on_event(Event::Bytes(count));
    }
    file.commit(kept.as_ref()).map_err(failed)?;
    if transfer.trailer().is_some_and(|trailer| trailer.changed) {
        on_event(Event::Changed { path: Path::new("") });
    }
    Ok(Report { files: 1, bytes: transfer.received(), ..Report::default() })
}

/// What is kept of modes and times.
fn kept(mode: u32, (seconds, nanoseconds): (i64, u32)) -> Kept {
    // Whose it was is not kept, so to run it as its owner would be to run it as us.
    let mode = Mode::from_bits_truncate(mode & 0o1777);
    Kept { mode, mtime: TimeSpec::new(seconds, nanoseconds.into()) }
}

struct Writer<'a> {
    folder: Folder,
    name: Option<&'a OsStr>,
    options: &'a Options,
    on_event: &'a mut dyn FnMut(Event<'_>),
    levels: Vec<Level>,
    /// A small file.
    buffer: Vec<u8>,
    report: Report,
}

/// A directory of the tree that it is in.
struct Level {
    /// None: it could not be made, so nothing in it can.
    folder: Option<Folder>,
    kept: Option<Kept>,
}

/// Why an entry is not written.
enum Trouble {
    /// Its bytes do not come.
    Source(Error),
    /// Here.
    Errno(Errno),
    /// Nobody is to be told: it comes again, or was told of before.
    Known,
    Special(Kind),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Writer<'_> {
    /// A file of at most so many bytes is begun once it is there, and verified.
    const SMALL: usize = 256 << 10;

    fn write_all(&mut self, walk: &mut Walk) -> Result<(), Error> {
        while let Some(entry) = walk.next_entry()? {
            self.write(entry)?;
        }
        Ok(())
    }

    fn write(&mut self, mut entry: WalkEntry<'_>) -> Result<(), Error> {
        self.leave(entry.depth());
        let written = match entry.error() {
            Some(Error::FileChanged) => Err(Trouble::Known),
            Some(error) => Err(Trouble::Source(error.clone())),
            None => self.write_entry(&mut entry),
        };
        let why = match written {
            Ok(()) => return Ok(()),
            Err(Trouble::Known) => return Ok(()),
            Err(Trouble::Source(error)) if entry.is_fatal() => return Err(error),
            Err(Trouble::Source(error)) => error.to_string(),
            Err(Trouble::Errno(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EIO))) => {
                return Err(Error::Output(errno.desc().to_owned()));
            }
            Err(Trouble::Errno(errno)) => errno.desc().to_owned(),
            Err(Trouble::Special(kind)) => format!("Is a {kind}, which is not copied"),
        };
        self.report.problems += 1;
        (self.on_event)(Event::Problem { path: entry.path(), why });
        Ok(())
    }

    /// Closes the directories from this depth on, which are complete now.
    fn leave(&mut self, depth: usize) {
        while self.levels.len() > depth {
            if let Some(Level { folder: Some(folder), kept }) = self.levels.pop() {
                folder.close(kept.as_ref(), &self.options.unfinished);
            }
        }
    }

    fn write_entry(&mut self, entry: &mut WalkEntry<'_>) -> Result<(), Trouble> {
        let metadata = *entry.metadata();
        let name = match entry.depth() {
            0 => self.name,
            _ => Some(entry.name()),
        };
        match (metadata.kind(), name) {
            (Kind::Directory, None) => {
                let folder = Some(self.folder.clone());
                self.levels.push(Level { folder, kept: None });
                return Ok(());
            }
            (_, None) => return Err(Errno::EISDIR.into()),
            (Kind::Directory, Some(name)) => self.write_directory(name, &metadata)?,
            (Kind::Regular, Some(name)) => {
                let name = name.to_owned();
                self.write_file(entry, &name, &metadata)?;
            }
            (Kind::Link, Some(name)) => {
                let target = entry.target().unwrap_or(Path::new(""));
                if target.as_os_str().is_empty() {
                    return Err(Trouble::Known); // why comes behind it
                }
                let kept = self.kept(&metadata);
                let folder = self.parent().ok_or(Trouble::Known)?;
                folder.make_link(name, target, kept.as_ref(), &self.options.unfinished)?;
                self.report.links += 1;
            }
            (kind, Some(_)) => return Err(Trouble::special(kind)),
        }
        (self.on_event)(Event::Done { path: entry.path(), metadata: &metadata });
        Ok(())
    }

    /// Where the entry is to be made.
    fn parent(&self) -> Option<&Folder> {
        match self.levels.last() {
            None => Some(&self.folder),
            Some(level) => level.folder.as_ref(),
        }
    }

    fn kept(&self, metadata: &Metadata) -> Option<Kept> {
        (!self.options.no_preserve).then(|| kept(metadata.mode(), metadata.mtime()))
    }

    fn write_directory(&mut self, name: &OsStr, metadata: &Metadata) -> Result<(), Trouble> {
        let kept = self.kept(metadata);
        // Whatever it is to be, it has to be written to first.
        let mode = kept.map_or(Mode::from_bits_truncate(0o777), |_| Mode::S_IRWXU);
        let made = match self.parent() {
            Some(parent) => {
                parent.make_folder(name, mode, &self.options.unfinished).map_err(Trouble::Errno)
            }
            None => Err(Trouble::Known),
        };
        let (folder, outcome) = match made {
            Ok(folder) => (Some(folder), Ok(())),
            Err(trouble) => (None, Err(trouble)),
        };
        self.levels.push(Level { folder, kept });
        self.report.directories += u64::from(outcome.is_ok());
        outcome
    }

    fn write_file(
        &mut self,
        entry: &mut WalkEntry<'_>,
        name: &OsStr,
        metadata: &Metadata,
    ) -> Result<(), Trouble> {
        let (kept, unfinished) = (self.kept(metadata), self.options.unfinished.clone());
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.read_small(entry, &mut buffer)?;
        let folder = match self.levels.last() {
            None => &self.folder,
            Some(level) => level.folder.as_ref().ok_or(Trouble::Known)?,
        };
        let mut bytes = buffer.len() as u64;
        let mut file = folder.begin_file(name, kept.as_ref(), &unfinished)?;
        file.write(&buffer)?;
        loop {
            let next = entry.fill_buf().map_err(Trouble::source)?;
            if next.is_empty() {
                break;
            }
            file.write(next)?;
            let count = next.len();
            entry.consume(count);
            bytes += count as u64;
            (self.on_event)(Event::Bytes(count));
        }
        file.commit(kept.as_ref())?;
        self.buffer = buffer;
        self.report.files += 1;
        self.report.bytes += bytes;
        if entry.has_changed() {
            (self.on_event)(Event::Changed { path: entry.path() });
        }
        Ok(())
    }

    /// Reads a file to its end, or as much as a small one has.
    fn read_small(
        &mut self,
        entry: &mut WalkEntry<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Trouble> {
        while buffer.len() <= Self::SMALL {
            let next = entry.fill_buf().map_err(Trouble::source)?;
            if next.is_empty() {
                break;
            }
            buffer.extend_from_slice(next);
            let count = next.len();
            entry.consume(count);
            (self.on_event)(Event::Bytes(count));
        }
        Ok(())
    }
}

impl Trouble {
    fn source(error: std::io::Error) -> Self {
        match Error::of_read(error) {
            Error::FileChanged => Self::Known,
            error => Self::Source(error),
        }
    }

    fn special(kind: Kind) -> Self {
        match kind {
            Kind::Unknown => Self::Known, // why comes behind it
            kind => Self::Special(kind),
        }
    }
}
