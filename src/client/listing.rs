//! The entries of a directory, sorted by the bytes of their names, in a limited amount of memory.
//!
//! A server sends them in the order of its file system. Those that do not fit are forgotten, and
//! the directory is listed again for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::metadata::{DirEntry, Metadata};
use super::pipeline::Pipeline;
use super::planned::PlannedQuestion;
use super::requester::Requester;
use super::session::Step;
use crate::wire::{Entry, Malformed, Operation};

/// The entries of a directory, sorted by the bytes of their names. It takes a limited amount of
/// memory: a directory of several hundred thousand entries is listed several times.
#[derive(Debug)]
pub struct ReadDir {
    pipeline: Pipeline,
    path: PathBuf,
    listing: Listing<DirEntry>,
}

impl ReadDir {
    const MAX_BYTES: usize = 32 << 20;

    pub(super) fn open(requester: Requester, path: &Path) -> Result<Self, Error> {
        let (pipeline, listing) = (Pipeline::new(requester), Listing::new());
        let mut opened = Self { pipeline, path: path.to_owned(), listing };
        opened.list()?;
        Ok(opened)
    }

    fn list(&mut self) -> Result<(), Error> {
        self.pipeline.push(PlannedQuestion::new(&self.path, Operation::List));
        let keep = |entry: &Entry<'_>| (DirEntry::of(entry), entry.name.len() + entry.target.len());
        let outcome = self.listing.receive(&mut self.pipeline, Self::MAX_BYTES, keep);
        self.pipeline.release();
        outcome.map(drop)
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.listing.is_incomplete()
            && let Err(error) = self.list()
        {
            self.listing = Listing::new(); // the error is the end
            return Some(Err(error));
        }
        self.listing.take().map(|(_, entry)| Ok(entry))
    }
}

/// Entries of a directory that were listed, and not taken yet. `T` is what is kept of each.
#[derive(Debug)]
pub(super) struct Listing<T> {
    entries: BTreeMap<Box<[u8]>, (T, usize)>,
    pub(super) size: usize,
    /// The name that was taken last.
    after: Box<[u8]>,
    /// Whether there are more entries behind the last of `entries`.
    is_cut: bool,
    listed: u64,
}

impl<T> Listing<T> {
    /// About how many bytes an entry takes in addition to its name and to what is kept of it.
    const OVERHEAD: usize = 48 + size_of::<T>();

    const MAX_ENTRIES: u64 = 100_000_000;

    pub(super) fn new() -> Self {
        let (entries, after) = (BTreeMap::new(), Box::default());
        Self { entries, size: 0, after, is_cut: false, listed: 0 }
    }

    pub(super) fn take(&mut self) -> Option<(Box<[u8]>, T)> {
        let (name, (kept, size)) = self.entries.pop_first()?;
        self.size -= size;
        self.after.clone_from(&name);
        Some((name, kept))
    }

    /// Whether the directory must be listed again to get the next entry.
    pub(super) fn is_incomplete(&self) -> bool {
        self.entries.is_empty() && self.is_cut
    }

    pub(super) fn forget(&mut self) {
        self.is_cut |= !self.entries.is_empty();
        self.entries.clear();
        self.size = 0;
    }

    /// Receives the answer to a question that lists the directory. It keeps the entries after those
    /// that were taken, as far as they fit into `most` bytes. `keep` also returns how many bytes on
    /// the heap belong to what it keeps. Returns what the directory is.
    pub(super) fn receive(
        &mut self,
        pipeline: &mut Pipeline,
        most: usize,
        keep: impl Fn(&Entry<'_>) -> (T, usize),
    ) -> Result<Metadata, Error> {
        let (mut directory, mut bytes) = (None, Vec::new());
        loop {
            match pipeline.next()? {
                Step::Begun => {
                    directory = pipeline.entry().map(|entry| Metadata(entry.stat));
                    self.entries.clear();
                    (self.size, self.is_cut, self.listed) = (0, false, 0);
                    bytes.clear();
                }
                Step::Bytes => {
                    bytes.extend_from_slice(pipeline.bytes());
                    pipeline.consume(usize::MAX);
                    let added = self.add_all(&bytes, most, &keep);
                    let rest = added.map_err(|error| pipeline.fail(error))?;
                    bytes.drain(..bytes.len() - rest);
                }
                Step::Ended(_) => break,
            }
        }
        let wrong = match directory {
            _ if !bytes.is_empty() => "the bytes end within an entry",
            Some(metadata) if metadata.is_dir() => return Ok(metadata),
            _ => "a listing of what is no directory",
        };
        Err(pipeline.fail(Error::corrupt(wrong)))
    }

    /// Adds the entries that are complete, and forgets the last ones if there are too many. Returns
    /// how many bytes are left.
    fn add_all(
        &mut self,
        mut bytes: &[u8],
        most: usize,
        keep: impl Fn(&Entry<'_>) -> (T, usize),
    ) -> Result<usize, Error> {
        loop {
            let entry = match Entry::decode(bytes) {
                Ok(entry) => entry,
                Err(Malformed::TooShort) => return Ok(bytes.len()),
                Err(malformed) => return Err(malformed.into()),
            };
            if !is_entry_name(entry.name) {
                return Err(Error::corrupt("a name that no entry can have"));
            }
            self.listed += 1;
            if self.listed > Self::MAX_ENTRIES {
                return Err(Error::corrupt("more entries than any directory has"));
            }
            bytes = &bytes[entry.encoded_len()..];
            if entry.name <= &self.after[..] {
                continue;
            }
            let (kept, more) = keep(&entry);
            let size = entry.name.len() + more + Self::OVERHEAD;
            // A file that is removed and made again meanwhile may come twice: readdir(3).
            if let Some((_, old)) = self.entries.insert(entry.name.into(), (kept, size)) {
                self.size -= old;
            }
            self.size += size;
            while self.size > most
                && self.entries.len() > 1
                && let Some((_, (_, size))) = self.entries.pop_last()
            {
                self.size -= size;
                self.is_cut = true;
            }
        }
    }
}

/// Whether a directory can have an entry of this name: a server may send other names.
pub(super) fn is_entry_name(name: &[u8]) -> bool {
    let has_bad_byte = || name.iter().any(|&byte| byte == 0 || byte == b'/');
    !matches!(name, b"" | b"." | b"..") && name.len() <= 255 && !has_bad_byte()
}
