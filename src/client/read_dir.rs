use std::path::{Path, PathBuf};

use super::error::Error;
use super::listing::Listing;
use super::metadata::DirEntry;
use super::pipeline::Pipeline;
use super::planned::PlannedQuestion;
use super::requester::Requester;
use crate::wire::{Entry, Operation};

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
