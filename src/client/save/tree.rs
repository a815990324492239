use std::ffi::OsStr;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fstat};
use nix::sys::time::TimeSpec;

use super::atomic_file::AtomicFile;
use super::cleanup_guard::CleanupGuard;
use super::dir::{Dir, PreservedAttrs};
use crate::client::error::{Cause, Error};
use crate::client::metadata::Metadata;
use crate::client::transfer::Transfer;
use crate::client::walk::{Walk, WalkEntry};
use crate::sys::{errno_of, geteuid};

/// Options for [`write_tree`] and [`write_file`].
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Do not copy modes and modification times.
    pub no_preserve: bool,
    /// The guard to keep up to date, for a process that may end early.
    pub cleanup: CleanupGuard,
}

/// Progress of a tree. Paths are below its top.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Bytes of a file arrived.
    Bytes(usize),
    /// An entry was written completely.
    Done(&'a Path, &'a Metadata),
    /// A file changed while the server read it: the copy may be a mixture of old and new.
    Changed(&'a Path),
    /// An entry is no file, directory or symbolic link, and is left out. Says what it is.
    Skipped(&'a Path, String),
    /// An entry could not be written, or a directory was another user's before. Says why.
    Problem(&'a Path, String),
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
/// and times are copied, but not owners, and so no set-user-id and set-group-id bits. If the copy
/// has another group than the original, group and others get only what both have. Special files are
/// [skipped](Event::Skipped). The copy itself, if it is in the tree, is a problem and is left out.
/// Failures of single entries are [`Event::Problem`]s; an error ends the tree.
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
        report: Report::default(),
    };
    let mut write_all = || {
        while let Some(entry) = walk.next_entry()? {
            writer.write(entry)?;
        }
        Ok(())
    };
    let outcome = write_all();
    writer.leave(0); // also after an error: gives the open directories their attributes
    outcome.map(|()| writer.report)
}

/// A file of at most this size, and without holes, is created only after it was verified.
const SMALL: usize = 256 << 10;

/// Writes a file into a directory, under a name.
pub fn write_file(
    source: &mut Transfer,
    dir: &Dir,
    name: &OsStr,
    options: &WriteOptions,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(), Error> {
    let output_failed = |error| Cause::Output(errno_of(&error));
    let attrs = source.metadata().and_then(|metadata| preserved(&metadata, options));
    let mut buffer = Vec::new();
    let is_large = source.expected() > Some(SMALL as u64);
    while !is_large && buffer.len() <= SMALL && source.wait()? && source.extents().next().is_none()
    {
        let bytes = source.fill_buf().map_err(Error::from_read)?;
        buffer.extend_from_slice(bytes);
        let count = bytes.len();
        source.consume(count);
        on_event(Event::Bytes(count));
    }
    let created = AtomicFile::create(dir, name, attrs, &options.cleanup);
    let mut new = created.map_err(Cause::Output)?;
    new.file.write_all(&buffer).map_err(output_failed)?;
    while source.wait()? {
        let count = source.write_to(new.file.as_fd(), true).map_err(output_failed)?;
        on_event(Event::Bytes(count));
    }
    Ok(new.commit().map_err(Cause::Output)?)
}

fn preserved(metadata: &Metadata, options: &WriteOptions) -> Option<PreservedAttrs> {
    (!options.no_preserve).then(|| PreservedAttrs {
        mode: metadata.mode(),
        gid: metadata.gid().as_raw(),
        mtime: TimeSpec::new(metadata.mtime(), metadata.mtime_nsec().into()),
    })
}

struct Writer<'a> {
    dir: Dir,
    name: Option<&'a OsStr>,
    options: &'a WriteOptions,
    on_event: &'a mut dyn FnMut(Event<'_>),
    levels: Vec<Level>,
    report: Report,
}

#[derive(Clone, Default)]
struct Level {
    /// None if it could not be created.
    dir: Option<Dir>,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    attrs: Option<PreservedAttrs>,
}

impl Writer<'_> {
    fn write(&mut self, mut entry: WalkEntry<'_>) -> Result<(), Error> {
        self.leave(entry.depth());
        let metadata = entry.metadata();
        if let Some(Level { dir: None, .. }) = self.levels.last() {
            if metadata.is_ok_and(|metadata| metadata.is_dir()) {
                self.levels.push(Level::default());
            }
            return Ok(()); // its directory was reported
        }
        let written = metadata.and_then(|metadata| self.write_entry(&mut entry, &metadata));
        let Err(error) = written else { return Ok(()) };
        let why = match error.0 {
            _ if entry.transfer().pipeline.check().is_err() => return Err(error), // no more comes
            Cause::FileChanged => return Ok(()), // the server sends the file again
            Cause::Output(Errno::ENOSPC | Errno::EDQUOT | Errno::EIO) => return Err(error),
            _ => error.to_string(),
        };
        self.report.problems += 1;
        (self.on_event)(Event::Problem(entry.path(), why));
        Ok(())
    }

    /// Closes the directories at this depth and below.
    fn leave(&mut self, depth: usize) {
        while self.levels.len() > depth {
            if let Some(Level { dir: Some(dir), attrs, .. }) = self.levels.pop() {
                dir.close(attrs.as_ref(), &self.options.cleanup);
            }
        }
    }

    fn write_entry(&mut self, entry: &mut WalkEntry<'_>, metadata: &Metadata) -> Result<(), Error> {
        let name = match entry.depth() {
            0 => self.name.map(OsStr::to_owned),
            _ => Some(entry.file_name().to_owned()),
        };
        if metadata.is_dir() {
            let level = self.make_level(entry.path(), name.as_deref(), metadata);
            self.levels.push(level.as_ref().cloned().unwrap_or_default());
            level?;
            if name.is_none() {
                return Ok(());
            }
        }
        let name = name.ok_or(Cause::Output(Errno::EISDIR))?;
        let parent = self.levels.last().and_then(|level| level.dir.as_ref()).unwrap_or(&self.dir);
        if metadata.is_dir() {
            self.report.directories += 1;
        } else if metadata.is_file() {
            let file = entry.transfer();
            write_file(file, parent, &name, self.options, self.on_event)?;
            self.report.files += 1;
            self.report.bytes = self.report.bytes.saturating_add(file.received());
            if entry.has_changed() {
                (self.on_event)(Event::Changed(entry.path()));
            }
        } else if let Some(target) = entry.link_target() {
            let attrs = preserved(metadata, self.options);
            let made = parent.make_link(&name, target, attrs.as_ref(), &self.options.cleanup);
            made.map_err(Cause::Output)?;
            self.report.links += 1;
        } else {
            let why = format!("Is a {}, which is not copied", metadata.file_type());
            (self.on_event)(Event::Skipped(entry.path(), why));
            return Ok(());
        }
        (self.on_event)(Event::Done(entry.path(), metadata));
        Ok(())
    }

    /// Makes a directory; without a name, takes the one for the whole tree.
    fn make_level(
        &mut self,
        path: &Path,
        name: Option<&OsStr>,
        original: &Metadata,
    ) -> Result<Level, Error> {
        let identity = Some((original.dev(), original.ino()));
        // A copy of the copy would never end.
        let itself =
            || Cause::Failed { text: "Is the copy, which is left out".into(), errno: None };
        if self.levels.iter().any(|level| level.identity == identity) {
            return Err(itself().into());
        }
        let parent = self.levels.last().and_then(|level| level.dir.as_ref()).unwrap_or(&self.dir);
        let attrs = name.and_then(|_| preserved(original, self.options));
        // Whatever its final mode is, we must write to it first.
        let mode = Mode::from_bits_truncate(if attrs.is_some() { 0o700 } else { 0o777 });
        let made = name.map_or(Ok((parent.clone(), true)), |name| parent.make_dir(name, mode));
        let (dir, is_new) = made.map_err(Cause::Output)?;
        let stat = fstat(&dir).map_err(Cause::Output)?;
        if identity == Some((stat.st_dev, stat.st_ino)) {
            return Err(itself().into());
        }
        if !is_new {
            dir.make_writable(&stat, &self.options.cleanup);
            if stat.st_uid != geteuid().as_raw() {
                let why = format!("uid {} made this directory, and may change it", stat.st_uid);
                (self.on_event)(Event::Problem(path, why));
            }
        }
        Ok(Level { dir: Some(dir), identity: Some((stat.st_dev, stat.st_ino)), attrs })
    }
}
