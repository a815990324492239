//! Asks about one path.

use std::path::Path;

use super::dir_entry::DirEntry;
use super::error::Error;
use super::requester::Requester;
use super::stream::Stream;
use crate::wire::{Entry, Operation, Reply, Start};

/// Asks for the metadata and the link target of one path.
pub(super) fn stat(requester: Requester, path: &Path, follow: bool) -> Result<DirEntry, Error> {
    let mut stream = Stream::open(requester, path, Operation::Stat { follow })?;
    loop {
        match read_answer(&mut stream) {
            Err(error) if error.is_retryable() => stream.resume(Start::BEGINNING, error)?,
            outcome => return outcome,
        }
    }
}

fn read_answer(stream: &mut Stream) -> Result<DirEntry, Error> {
    let (mut found, mut text) = (None, Vec::new());
    while let Some(mtype) = stream.next_message(&mut text)? {
        match Reply::decode(mtype, &text)? {
            Reply::Meta(_) if found.is_none() => found = Some(DirEntry::of(&Entry::decode(&text)?)),
            Reply::Failure(failure) => return Err(failure.into()),
            _ => return Err(Error::corrupt("more than one entry for one path")),
        }
    }
    found.ok_or(Error::corrupt("no entry for the path"))
}
