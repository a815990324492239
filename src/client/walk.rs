//! Receives a tree: the client lists directories and asks for files, ahead of the answers.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Cause, Error, ErrorKind};
use super::listing::Listing;
use super::metadata::{DirEntry, Metadata};
use super::pipeline::Pipeline;
use super::planned::{Base, PlannedQuestion};
use super::requester::Requester;
use super::transfer::Transfer;
use crate::wire::{Entry, Kind, Operation, Range};

/// A directory with everything below it.
///
/// A directory comes before its entries, which are sorted by the bytes of their names. No symbolic
/// link below the top is followed. If the server dies on the way, another one is asked for the
/// rest. A directory is listed up to 32 entries before its turn.
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
    /// The directories whose entries are asked for, from the top down, and the path of the last.
    levels: Vec<Level>,
    level_path: Vec<u8>,
    /// Entries that were taken from the levels, and not asked for yet. If the last one is a
    /// directory, its listing was asked for, and nothing comes behind it before that arrives.
    soon: VecDeque<Found>,
    /// What comes next, in the order of the questions in the pipeline.
    next: VecDeque<Next>,
    path: Vec<u8>,
    entry: DirEntry,
    depth: usize,
}

#[derive(Debug)]
struct Level {
    listing: Listing<Kept>,
    path_len: usize,
}

/// What is kept of an entry until its turn comes.
#[derive(Debug)]
enum Kept {
    File,
    Directory,
    Other(Box<DirEntry>),
}

#[derive(Debug)]
struct Found {
    path: Vec<u8>,
    depth: usize,
    kept: Kept,
}

#[derive(Debug)]
enum Next {
    Entry(Found),
    /// The listing of the directory at the end of `soon`.
    Listing,
}

/// An entry of a tree. It reads like a [`Transfer`].
#[derive(Debug)]
pub struct WalkEntry<'a> {
    walk: &'a mut Walk,
}

impl Walk {
    /// About how many bytes the names of one directory may take, and those of all levels.
    const MAX_BYTES: usize = 8 << 20;
    const MAX_BYTES_IN_ALL: usize = 16 << 20;

    /// How long, in bytes, the path of a directory below the top may be. No real tree is that deep.
    const MAX_PATH_BELOW: usize = 256 << 10;

    /// How many entries to ask for ahead, and about how many bytes their paths may take.
    const AHEAD: usize = 128;
    const AHEAD_BYTES: usize = 64 << 10;

    /// How many entries before its turn a directory is listed. While they arrive, the first entries
    /// in it are asked for, so the server always has something to answer.
    const AFTER_LISTING: usize = 32;

    pub(super) fn open(requester: Requester, path: &Path) -> Result<Self, Error> {
        let mut pipeline = Pipeline::new(requester);
        pipeline.in_session = true;
        pipeline.push(PlannedQuestion::new(path, Operation::Enter));
        let top = pipeline.next_entry()?;
        let metadata = top.metadata()?;
        let mut walk = Self {
            transfer: Transfer::new(pipeline),
            top: path.to_owned(),
            base: None,
            levels: Vec::new(),
            level_path: Vec::new(),
            soon: VecDeque::new(),
            next: VecDeque::new(),
            path: Vec::new(),
            entry: top,
            depth: 0,
        };
        if metadata.is_dir() {
            let identity = (metadata.dev(), metadata.ino());
            let base = Arc::new(Base { path: path.to_owned(), identity });
            walk.transfer.pipeline.set_base(&base);
            walk.base = Some(base);
            walk.ask(Vec::new(), Operation::List);
            let mut listing = Listing::new();
            walk.entry = DirEntry::new(b"", Ok(walk.receive(&mut listing)?));
            walk.levels.push(Level { listing, path_len: 0 });
        }
        let kept = if metadata.is_file() {
            walk.ask(Vec::new(), Operation::Fetch(Range::WHOLE));
            Kept::File
        } else {
            Kept::Other(Box::new(walk.entry.clone()))
        };
        walk.next.push_back(Next::Entry(Found { path: Vec::new(), depth: 0, kept }));
        Ok(walk)
    }

    /// The next entry; None at the end. An error means that the rest of the tree cannot arrive.
    /// Errors of single entries are in [`WalkEntry::metadata`].
    pub fn next_entry(&mut self) -> Result<Option<WalkEntry<'_>>, Error> {
        self.transfer.pipeline.check()?;
        Ok(self.advance()?.then_some(WalkEntry { walk: self }))
    }

    fn advance(&mut self) -> Result<bool, Error> {
        while self.transfer.is_in_file() {
            if let Err(error) = self.transfer.fill() {
                self.transfer.pipeline.check()?;
                self.entry = DirEntry::new(name_of(&self.path), Err(error));
                return Ok(true);
            }
            self.transfer.consume(usize::MAX); // what the caller did not read
        }
        if matches!(&self.transfer.end, Some(Err(error)) if error.kind() == ErrorKind::FileChanged)
        {
            // It arrived in part: make it the next entry again.
            let found = Found { path: self.path.clone(), depth: self.depth, kept: Kept::File };
            let planned = self.planned(self.path.clone(), Operation::Fetch(Range::WHOLE));
            self.transfer.pipeline.push_front(planned);
            self.next.push_front(Next::Entry(found));
        }
        loop {
            self.ask_ahead();
            match self.next.pop_front() {
                Some(Next::Entry(found)) => {
                    if self.begin(found)? {
                        return Ok(true);
                    }
                }
                Some(Next::Listing) => self.enter()?,
                None if self.list_again()? => {}
                None => return Ok(false),
            }
        }
    }

    /// Asks for the next entries, up to a directory whose listing has not arrived, or to an entry
    /// that must be listed again.
    fn ask_ahead(&mut self) {
        let ahead = Self::AHEAD.min(1 + Self::AHEAD_BYTES / (self.level_path.len() + 1));
        while self.next.len() < ahead {
            self.look_ahead(ahead.min(Self::AFTER_LISTING));
            if matches!(self.soon.front(), None | Some(Found { kept: Kept::Directory, .. })) {
                break;
            }
            let Some(found) = self.soon.pop_front() else { break };
            if matches!(found.kept, Kept::File) {
                self.ask(found.path.clone(), Operation::Fetch(Range::WHOLE));
            }
            self.next.push_back(Next::Entry(found));
        }
    }

    fn look_ahead(&mut self, most: usize) {
        while self.soon.len() < most
            && !matches!(self.soon.back(), Some(Found { kept: Kept::Directory, .. }))
            && let Some(level) = self.levels.last_mut()
        {
            let Some((name, kept)) = level.listing.take() else {
                if level.listing.is_incomplete() {
                    break;
                }
                self.leave();
                continue;
            };
            let mut path = self.level_path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if matches!(kept, Kept::Directory) {
                self.ask(path.clone(), Operation::List);
                self.next.push_back(Next::Listing);
            }
            self.soon.push_back(Found { path, depth: self.levels.len(), kept });
        }
    }

    fn ask(&mut self, path: Vec<u8>, operation: Operation) {
        let planned = self.planned(path, operation);
        self.transfer.pipeline.push(planned);
    }

    fn planned(&self, path: Vec<u8>, operation: Operation) -> PlannedQuestion {
        let Some(base) = &self.base else { return PlannedQuestion::new(&self.top, operation) };
        let path = OsString::from_vec(path).into();
        PlannedQuestion { path, operation, base: Some(Arc::clone(base)) }
    }

    /// Nothing was asked ahead: lists a directory again whose next entry is not in memory. False:
    /// the walk is over.
    fn list_again(&mut self) -> Result<bool, Error> {
        let Some(mut level) = self.levels.pop() else {
            self.transfer.pipeline.release();
            return Ok(false);
        };
        let path = self.level_path.clone();
        self.ask(path.clone(), Operation::List);
        let outcome = self.receive(&mut level.listing);
        self.levels.push(level);
        if let Err(error) = outcome {
            self.transfer.pipeline.check()?;
            self.leave();
            let kept = Kept::Other(Box::new(DirEntry::new(name_of(&path), Err(error))));
            self.next.push_back(Next::Entry(Found { path, depth: self.levels.len(), kept }));
        }
        Ok(true)
    }

    fn leave(&mut self) {
        self.levels.pop();
        self.level_path.truncate(self.levels.last().map_or(0, |level| level.path_len));
    }

    /// Receives the listing of the last directory in `soon`.
    fn enter(&mut self) -> Result<(), Error> {
        let mut listing = Listing::new();
        let outcome = self.receive(&mut listing);
        self.transfer.pipeline.check()?;
        let Some(directory) = self.soon.back_mut() else { return Ok(()) };
        if directory.path.len() > Self::MAX_PATH_BELOW {
            let error = Error::corrupt("its directories are nested too deeply");
            return Err(self.transfer.pipeline.fail(error));
        }
        match outcome {
            Err(error) if error.kind() == ErrorKind::NotFound => _ = self.soon.pop_back(),
            outcome => {
                if outcome.is_ok() {
                    self.level_path.clone_from(&directory.path);
                    self.levels.push(Level { listing, path_len: directory.path.len() });
                }
                let entry = DirEntry::new(name_of(&directory.path), outcome);
                directory.kept = Kept::Other(Box::new(entry));
            }
        }
        self.limit_memory();
        Ok(())
    }

    fn limit_memory(&mut self) {
        let mut size: usize = self.levels.iter().map(|level| level.listing.size).sum();
        let Some((_, outer)) = self.levels.split_last_mut() else { return };
        for level in outer {
            if size <= Self::MAX_BYTES_IN_ALL {
                break;
            }
            size -= level.listing.size;
            level.listing.forget();
        }
    }

    fn receive(&mut self, listing: &mut Listing<Kept>) -> Result<Metadata, Error> {
        let keep = |entry: &Entry<'_>| match entry.stat.kind {
            Kind::Regular => (Kept::File, 0),
            Kind::Directory => (Kept::Directory, 0),
            _ => {
                let size = size_of::<DirEntry>() + entry.name.len() + entry.target.len();
                // Also a link whose target is not known: it cannot be copied.
                let kept = match entry.errno {
                    Some(errno) => DirEntry::new(entry.name, Err(Cause::server(errno).into())),
                    None => DirEntry::of(entry),
                };
                (Kept::Other(Box::new(kept)), size)
            }
        };
        listing.receive(&mut self.transfer.pipeline, Self::MAX_BYTES, keep)
    }

    /// Begins an entry. False: it was removed since it was listed.
    fn begin(&mut self, found: Found) -> Result<bool, Error> {
        (self.path, self.depth) = (found.path, found.depth);
        if let Kept::Other(entry) = found.kept {
            self.entry = *entry;
            self.transfer.end = Some(self.entry.metadata().map(|_| None));
            return Ok(true);
        }
        let begun = self.transfer.begin();
        let unknown = || Error::corrupt("no entry for the path");
        let metadata = begun.and_then(|()| self.transfer.metadata().ok_or_else(unknown));
        self.transfer.pipeline.check()?;
        let is_gone = matches!(&metadata, Err(error) if error.kind() == ErrorKind::NotFound);
        self.entry = DirEntry::new(name_of(&self.path), metadata);
        Ok(!is_gone || self.depth == 0)
    }
}

impl WalkEntry<'_> {
    /// The path below the top, whose own path is empty. It may be longer than `PATH_MAX`.
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

    /// The metadata. Symbolic links are not followed. An error means that the server could not look
    /// at the entry, or that part of the previous entry, which the caller did not read, did not
    /// arrive: then this entry has the previous one's name. The rest of the tree is not affected.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        self.walk.entry.metadata()
    }

    /// Where a symbolic link leads. None if this is no link.
    pub fn link_target(&self) -> Option<&Path> {
        self.walk.entry.link_target()
    }

    /// See [`Transfer::has_changed`].
    pub fn has_changed(&self) -> bool {
        self.walk.transfer.has_changed()
    }

    pub(super) fn transfer(&mut self) -> &mut Transfer {
        &mut self.walk.transfer
    }

    #[cfg(feature = "programs")]
    pub(crate) fn extents(&self) -> impl Iterator<Item = crate::wire::Extent> {
        self.walk.transfer.extents()
    }
}

impl BufRead for WalkEntry<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.walk.transfer.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.walk.transfer.consume(amount);
    }
}

impl Read for WalkEntry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.walk.transfer.read(buffer)
    }
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
