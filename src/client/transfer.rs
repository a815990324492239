//! Receives a file: messages become bytes, which are verified at the end. If servers die, the bytes
//! come from several answers.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::answer::Answer;
use super::error::{Cause, Error};
use super::metadata::Metadata;
use super::requester::Requester;
use super::tally::Tally;
use crate::wire::{Arrived, Kind, Meta, Operation, Range};

/// A file, or a part of one, that is being received. Reading yields its bytes, and then the end of
/// file once all bytes have arrived and were verified.
///
/// If the server dies on the way, the transfer asks for the rest, as often as
/// [`retries`](super::ClientBuilder::retries) says, and continues if the file is still the same. An
/// error in place of the end means that the bytes are incomplete. Dropping a transfer removes its
/// reply queue, which tells the server to stop.
#[derive(Debug)]
pub struct Transfer {
    requester: Requester,
    path: PathBuf,
    answer: Answer,
    /// The META of the first answer that brought bytes.
    meta: Option<Meta>,
    /// What was asked for.
    range: Range,
    /// What earlier answers brought.
    before: Tally,
    /// The last part of `before`, which no END verified. The server compares it with the file when
    /// it is asked for the rest.
    unverified: Option<Arrived>,
    parts: u32,
    failed: Option<Error>,
}

impl Transfer {
    pub(super) fn open(mut requester: Requester, path: &Path, range: Range) -> Result<Self, Error> {
        let answer = requester.ask(path, Operation::Fetch(range))?;
        let meta = answer.meta;
        match meta {
            Some(meta) if meta.kind != Kind::Regular => {
                return Err(Error::corrupt("not a regular file"));
            }
            Some(meta) if meta.offset != range.offset => return Err(Error::WRONG_BEGINNING),
            None if range != Range::WHOLE => return Err(Cause::PlainServer.into()),
            _ => {}
        }
        Ok(Self {
            requester,
            path: path.to_owned(),
            answer,
            meta,
            range,
            before: Tally::default(),
            unverified: None,
            parts: 1,
            failed: None,
        })
    }

    /// The file's metadata, without owner, group and number of links. None from a plain server.
    pub fn metadata(&self) -> Option<Metadata> {
        self.meta.map(Metadata::of_transfer)
    }

    /// How many bytes the server announced. None if it does not know the file's size.
    pub fn expected(&self) -> Option<u64> {
        self.meta.and_then(|meta| meta.length)
    }

    /// How many bytes have arrived.
    pub fn received(&self) -> u64 {
        self.before.bytes + self.answer.tally.bytes
    }

    /// The CRC-32 of the bytes that have arrived, that of zlib and gzip.
    pub fn checksum(&self) -> u32 {
        let mut whole = self.before.clone();
        whole.append(&self.answer.tally);
        whole.checksum()
    }

    /// Whether the end has arrived, and length and checksum were right. Never true of a plain
    /// server's transfer.
    pub fn is_verified(&self) -> bool {
        self.answer.trailer.is_some()
    }

    /// Whether the file changed while the server read it, so that the bytes may be a mixture of old
    /// and new. Known at the end; a plain server does not say.
    pub fn has_changed(&self) -> bool {
        self.answer.trailer.is_some_and(|trailer| trailer.changed)
    }

    /// In how many parts the bytes arrived: more than one if servers died on the way.
    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// Receives the next bytes, from another answer if need be.
    fn advance(&mut self) -> Result<(), Error> {
        match self.answer.advance() {
            Ok(()) => {}
            Err(Error(Cause::Failed { errno: Some(Errno::ESTALE), .. }))
                if self.before.bytes > 0 =>
            {
                return Err(Cause::FileChanged.into());
            }
            Err(error) => self.resume(error)?,
        }
        if !self.answer.bytes().is_empty() {
            self.requester.restore_retries();
        }
        Ok(())
    }

    /// Asks for the rest, after an answer was `lost`.
    fn resume(&mut self, lost: Error) -> Result<(), Error> {
        if !lost.is_retryable() || !self.is_resumable() {
            return Err(lost);
        }
        let part = std::mem::take(&mut self.answer.tally);
        let start = self.range.offset + self.before.bytes;
        if part.bytes > 0 {
            // The server verified the earlier parts before it sent any of this one.
            self.unverified = Some(Arrived { start, checksum: part.checksum() });
            self.parts += 1;
        }
        self.before.append(&part);
        let offset = start + part.bytes;
        let length = self.range.length.map(|length| length.saturating_sub(self.before.bytes));
        let rest = Range { offset, length };
        let operation = match self.unverified {
            Some(arrived) => Operation::Resume(rest, arrived),
            None => Operation::Fetch(rest),
        };
        let answer = self.requester.ask_again(&self.path, operation, lost)?;
        if self.before.bytes == 0 {
            self.meta = answer.meta;
        } else if !is_same_file(self.meta.as_ref(), answer.meta.as_ref()) {
            return Err(Cause::FileChanged.into());
        }
        if answer.meta.map_or(rest != Range::WHOLE, |meta| meta.offset != offset) {
            return Err(Error::WRONG_BEGINNING);
        }
        self.answer = answer;
        Ok(())
    }

    /// Whether the rest can be asked for. A file without a size, as in /proc, may differ each time
    /// it is read, and a plain server can only start at the beginning.
    fn is_resumable(&self) -> bool {
        self.received() == 0 || self.meta.is_some_and(|meta| meta.size > 0)
    }
}

fn is_same_file(one: Option<&Meta>, other: Option<&Meta>) -> bool {
    let identity = |meta: &Meta| (meta.device, meta.inode, meta.size, meta.mtime);
    one.map(identity) == other.map(identity)
}

impl BufRead for Transfer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.answer.bytes().is_empty() && !self.answer.is_over() && self.failed.is_none() {
            self.failed = self.advance().err();
        }
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        Ok(self.answer.bytes())
    }

    fn consume(&mut self, amount: usize) {
        self.answer.consume(amount);
    }
}

impl Read for Transfer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
