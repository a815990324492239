//! The entries of a directory.

use std::path::Path;

use nix::errno::Errno;

use super::dir_entry::DirEntry;
use super::error::{Cause, Error};
use super::requester::Requester;
use super::stream::{Stream, is_entry_name};
use crate::wire::{Entry, Kind, Operation, Reply, Start};

/// The entries of a directory, sorted by the bytes of their names; like [`std::fs::ReadDir`].
///
/// If the server dies on the way, the iterator continues with another request.
#[derive(Debug)]
pub struct ReadDir {
    stream: Stream,
    /// The name that arrived last.
    last: Vec<u8>,
    text: Vec<u8>,
    has_ended: bool,
}

impl ReadDir {
    pub(super) fn open(requester: Requester, path: &Path) -> Result<Self, Error> {
        let stream = Stream::open(requester, path, Operation::List(Start::BEGINNING))?;
        if stream.meta.kind != Kind::Directory {
            return Err(Cause::server(Errno::ENOTDIR).into());
        }
        Ok(Self { stream, last: Vec::new(), text: Vec::new(), has_ended: false })
    }

    fn take_next(&mut self) -> Result<Option<DirEntry>, Error> {
        let Some(mtype) = self.stream.next_message(&mut self.text)? else { return Ok(None) };
        if mtype != Reply::META {
            return Err(Error::corrupt("a message that begins no entry"));
        }
        let entry = Entry::decode(&self.text)?;
        if !is_entry_name(entry.name) {
            return Err(Error::corrupt("a name that no entry can have"));
        }
        if entry.name <= &self.last[..] {
            return Err(Error::corrupt("entries that are not in their order"));
        }
        let name = entry.name.to_vec();
        let entry = match entry.meta.kind {
            Kind::Unknown => DirEntry::failed(&name, self.take_failure()?),
            _ => DirEntry::of(&entry),
        };
        self.last = name;
        Ok(Some(entry))
    }

    /// The FAILURE that follows an entry of unknown kind.
    fn take_failure(&mut self) -> Result<Error, Error> {
        const MISSING: Error = Error::corrupt("an entry is unknown without a reason");
        let mtype = self.stream.next_message(&mut self.text)?.ok_or(MISSING)?;
        match Reply::decode(mtype, &self.text)? {
            Reply::Failure(failure) => Ok(failure.into()),
            _ => Err(MISSING),
        }
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            let lost = match self.take_next() {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => break,
                Err(error) => error,
            };
            let start = Start { path: &self.last, arrived: None };
            if let Err(error) = self.stream.resume(start, lost) {
                self.has_ended = true;
                return Some(Err(error));
            }
        }
        self.has_ended = true;
        None
    }
}
