//! Receives a whole tree: the client lists the directories and asks for the files, ahead of the
//! answers.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir_entry::DirEntry;
use super::error::{Cause, Error, ErrorKind};
use super::listing::Listing;
use super::metadata::Metadata;
use super::pipeline::Pipeline;
use super::planned::{Base, PlannedQuestion};
use super::requester::Requester;
use super::transfer::Transfer;
use crate::wire::{Entry, Kind, Operation, Range};

/// A directory with everything below it.
///
/// A directory comes before its entries, which are sorted by the bytes of their names. No symbolic
/// link below the top is followed. If the server dies on the way, another one is asked for the
/// rest.
///
/// ```no_run
/// use std::io::Read;
///
/// let mut walk = mqfs::Client::new(mqfs::DEFAULT_KEY).walk("/etc")?;
/// while let Some(mut entry) = walk.next_entry()? {
///     let mut content = Vec::new();
///     entry.read_to_end(&mut content)?; // nothing, unless it is a regular file
///     println!("{}: {} bytes", mqfs::escape::escape(entry.path()), content.len());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Walk {
    /// The files, one after the other. Its pipeline has the other questions too.
    transfer: Transfer,
    top: PathBuf,
    /// None: the top is no directory.
    base: Option<Arc<Base>>,
    /// The directories that the walk is in, from the top down.
    levels: Vec<Level>,
    /// Which of them the entries after `next` are taken from.
    asking: usize,
    /// The next entries, whose questions are in the pipeline. Nothing comes after a directory.
    next: VecDeque<Next>,
    /// The path of the current entry below the top.
    path: Vec<u8>,
    entry: DirEntry,
    depth: usize,
}

#[derive(Debug)]
struct Level {
    listing: Listing<Kept>,
    /// How long the path of the directory is.
    path_len: usize,
}

/// What is kept of an entry until its turn comes.
#[derive(Debug)]
enum Kept {
    File,
    Directory,
    /// Nothing more has to be asked.
    Other(Box<DirEntry>),
}

#[derive(Debug)]
struct Next {
    /// How many levels it is in.
    depth: usize,
    /// Empty for the top.
    name: Box<[u8]>,
    kept: Kept,
}

/// An entry of a tree. Reading yields a file's bytes, and then the end of file once all bytes have
/// arrived and were verified.
#[derive(Debug)]
pub struct WalkEntry<'a> {
    walk: &'a mut Walk,
}

impl Walk {
    /// About how many bytes the names of one directory may take, and those of all levels.
    const MAX_BYTES: usize = 8 << 20;
    const MAX_BYTES_IN_ALL: usize = 16 << 20;

    /// How many entries to ask for ahead, and about how many bytes their paths may take.
    const AHEAD: usize = 128;
    const AHEAD_BYTES: usize = 64 << 10;

    pub(super) fn open(requester: Requester, path: &Path) -> Result<Self, Error> {
        let mut pipeline = Pipeline::new(requester).in_session();
        pipeline.push(PlannedQuestion::new(path, Operation::Enter));
        let top = pipeline.next_entry()?;
        let metadata = top.metadata()?;
        let mut walk = Self {
            transfer: Transfer::new(pipeline),
            top: path.to_owned(),
            base: None,
            levels: Vec::new(),
            asking: 0,
            next: VecDeque::new(),
            path: Vec::new(),
            entry: top,
            depth: 0,
        };
        let kept = if metadata.is_dir() {
            let identity = (metadata.dev(), metadata.ino());
            let base = Arc::new(Base { path: path.to_owned(), identity });
            walk.transfer.pipeline.set_base(&base);
            walk.base = Some(base);
            walk.ask(0, b"", Operation::List);
            walk.enter()?;
            Kept::Other(Box::new(walk.entry.clone()))
        } else if metadata.is_file() {
            walk.ask(0, b"", Operation::Fetch(Range::WHOLE));
            Kept::File
        } else {
            Kept::Other(Box::new(walk.entry.clone()))
        };
        walk.next.push_back(Next { depth: walk.levels.len(), name: Box::default(), kept });
        Ok(walk)
    }

    /// The next entry; None at the end.
    ///
    /// # Errors
    /// The rest of the tree cannot arrive. Errors of single entries are in
    /// [`WalkEntry::metadata`].
    pub fn next_entry(&mut self) -> Result<Option<WalkEntry<'_>>, Error> {
        self.transfer.pipeline.check()?;
        Ok(self.advance()?.then_some(WalkEntry { walk: self }))
    }

    /// Goes on to the next entry. False: there is none.
    fn advance(&mut self) -> Result<bool, Error> {
        while self.transfer.is_in_file() {
            if self.fill().is_err() {
                self.transfer.pipeline.check()?;
                return Ok(true);
            }
            self.transfer.consume(usize::MAX); // what the caller did not read
        }
        loop {
            self.ask_ahead();
            let Some(next) = self.next.pop_front() else {
                if !self.list_again()? {
                    return Ok(false);
                }
                continue;
            };
            self.levels.truncate(next.depth);
            self.set_path(&next.name);
            if self.begin(next)? {
                return Ok(true);
            }
        }
    }

    /// Asks for the next entries, up to a directory, or to one that must be listed again.
    fn ask_ahead(&mut self) {
        let deepest = self.levels.last().map_or(0, |level| level.path_len);
        let ahead = Self::AHEAD.min(1 + Self::AHEAD_BYTES / (deepest + 1));
        while self.next.len() < ahead
            && !matches!(self.next.back(), Some(Next { kept: Kept::Directory, .. }))
            && let Some(level) = self.levels.get_mut(self.asking)
        {
            let Some((name, kept)) = level.listing.take() else {
                if level.listing.is_incomplete() || self.asking == 0 {
                    break;
                }
                self.asking -= 1;
                continue;
            };
            let depth = self.asking + 1;
            match kept {
                Kept::File => self.ask(depth, &name, Operation::Fetch(Range::WHOLE)),
                Kept::Directory => self.ask(depth, &name, Operation::List),
                Kept::Other(_) => {}
            }
            self.next.push_back(Next { depth, name, kept });
        }
    }

    fn ask(&mut self, depth: usize, name: &[u8], operation: Operation) {
        let planned = self.planned(depth, name, operation);
        self.transfer.pipeline.push(planned);
    }

    /// A question about an entry that is in this many levels, or about the last of these itself.
    fn planned(&self, depth: usize, name: &[u8], operation: Operation) -> PlannedQuestion {
        let Some(base) = &self.base else { return PlannedQuestion::new(&self.top, operation) };
        let directory = depth.checked_sub(1).and_then(|last| self.levels.get(last));
        let directory = directory.map_or(0, |level| level.path_len);
        let mut path = self.path[..directory].to_vec();
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        PlannedQuestion {
            path: OsString::from_vec(path).into(),
            operation,
            base: Some(Arc::clone(base)),
        }
    }

    /// Nothing was asked ahead: lists a directory again whose next entry is not in memory. False:
    /// the walk is over.
    fn list_again(&mut self) -> Result<bool, Error> {
        let depth = self.asking + 1;
        self.levels.truncate(depth);
        let Some(level) = self.levels.last().filter(|level| level.listing.is_incomplete()) else {
            self.transfer.pipeline.release();
            return Ok(false);
        };
        self.path.truncate(level.path_len);
        self.ask(depth, b"", Operation::List);
        if let Err(error) = self.receive_listing() {
            self.transfer.pipeline.check()?;
            self.leave();
            let kept = Kept::Other(Box::new(DirEntry::new(self.name(), Err(error))));
            self.next.push_back(Next { depth: depth - 1, name: self.name().into(), kept });
        }
        Ok(true)
    }

    /// Leaves a directory that cannot be listed.
    fn leave(&mut self) {
        self.levels.pop();
        self.asking = self.levels.len().saturating_sub(1);
    }

    fn receive_listing(&mut self) -> Result<Metadata, Error> {
        let Some(level) = self.levels.last_mut() else {
            return Err(Error::corrupt("no directory to list"));
        };
        let keep = |entry: &Entry<'_>| match entry.stat.kind {
            Kind::Regular => (Kept::File, 0),
            Kind::Directory => (Kept::Directory, 0),
            _ => {
                let size = size_of::<DirEntry>() + entry.name.len() + entry.target.len();
                let kept = match entry.errno {
                    Some(errno) => DirEntry::new(entry.name, Err(Cause::server(errno).into())),
                    None => DirEntry::of(entry),
                };
                (Kept::Other(Box::new(kept)), size)
            }
        };
        level.listing.receive(&mut self.transfer.pipeline, Self::MAX_BYTES, keep)
    }

    /// Goes into the directory of the current path, whose listing was asked for.
    fn enter(&mut self) -> Result<Metadata, Error> {
        self.asking = self.levels.len();
        self.levels.push(Level { listing: Listing::new(), path_len: self.path.len() });
        let outcome = self.receive_listing();
        if outcome.is_err() {
            self.leave();
        }
        let mut size: usize = self.levels.iter().map(|level| level.listing.size()).sum();
        let outer = self.levels.len().saturating_sub(1);
        for level in &mut self.levels[..outer] {
            if size <= Self::MAX_BYTES_IN_ALL {
                break;
            }
            size -= level.listing.size();
            level.listing.forget();
        }
        outcome
    }

    fn set_path(&mut self, name: &[u8]) {
        let directory = self.levels.last().map_or(0, |level| level.path_len);
        self.path.truncate(directory);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.depth = if name.is_empty() { 0 } else { self.levels.len() };
    }

    /// Begins an entry. False: it was removed since it was listed.
    fn begin(&mut self, next: Next) -> Result<bool, Error> {
        self.transfer.clear();
        let metadata = match next.kept {
            Kept::Other(entry) => {
                self.entry = *entry;
                return Ok(true);
            }
            Kept::Directory => self.enter(),
            Kept::File => self.begin_file(),
        };
        self.transfer.pipeline.check()?;
        let is_gone = matches!(&metadata, Err(error) if error.kind() == ErrorKind::NotFound);
        self.entry = DirEntry::new(&next.name, metadata);
        Ok(!is_gone || next.name.is_empty())
    }

    fn begin_file(&mut self) -> Result<Metadata, Error> {
        self.transfer.begin()?;
        self.transfer.metadata().ok_or(Error::corrupt("no entry for the path"))
    }

    /// The last component of the path.
    fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Waits until bytes of the entry are there, or it has ended. An error replaces it.
    fn fill(&mut self) -> Result<(), Error> {
        self.entry.metadata()?;
        self.transfer.fill().inspect_err(|error| {
            if error.kind() == ErrorKind::FileChanged && self.transfer.pipeline.check().is_ok() {
                self.bring_again();
            }
            self.entry = DirEntry::new(self.name(), Err(error.clone()));
        })
    }

    /// Makes the current file, which arrived in part and has changed since, the next entry again.
    fn bring_again(&mut self) {
        let name: Box<[u8]> = self.name().into();
        let depth = self.levels.len();
        let planned = self.planned(depth, &name, Operation::Fetch(Range::WHOLE));
        self.transfer.pipeline.push_front(planned);
        self.next.push_front(Next { depth, name, kept: Kept::File });
    }
}

impl WalkEntry<'_> {
    /// The path below the top, whose own path is empty. In a very deep tree it is longer than any
    /// path that system calls accept (`PATH_MAX`).
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.walk.path))
    }

    /// The name: neither "." nor "..", and without a slash. Empty for the top.
    pub fn file_name(&self) -> &OsStr {
        self.walk.entry.file_name()
    }

    /// The depth below the top, which has depth 0.
    pub fn depth(&self) -> usize {
        self.walk.depth
    }

    /// The metadata. Symbolic links are not followed.
    ///
    /// # Errors
    /// The server could not look at the entry. Or part of the previous entry, which the caller did
    /// not read, did not arrive: then this entry has the previous one's name. The rest of the tree
    /// is not affected.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        self.walk.entry.metadata()
    }

    /// Where a symbolic link leads. None if this is no link.
    pub fn link_target(&self) -> Option<&Path> {
        self.walk.entry.link_target()
    }

    /// Whether the file changed while the server read it, so that the bytes may be a mixture of old
    /// and new. Known once the file was read to its end.
    pub fn has_changed(&self) -> bool {
        self.walk.transfer.has_changed()
    }

    /// Whether no other entry will follow.
    pub(super) fn is_fatal(&self) -> bool {
        self.walk.transfer.pipeline.check().is_err()
    }
}

impl BufRead for WalkEntry<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.walk.fill()?;
        Ok(self.walk.transfer.pipeline.bytes())
    }

    fn consume(&mut self, amount: usize) {
        self.walk.transfer.consume(amount);
    }
}

impl Read for WalkEntry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
