//! A file on its way: messages in, bytes out, verified at the end; over several attempts if servers
//! die on the way.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use nix::errno::Errno;

use super::attempt::Attempt;
use super::{Client, Error};
use crate::wire::{Arrived, Kind, Meta, Operation, Range, Trailer};

/// A file that arrives. Reading yields its bytes and, once all are there and verified, the end.
///
/// Where a server dies on the way, another request asks for the rest, as often as
/// [`retries`](super::Builder::retries) says, if it is still the same file. An error in place of the
/// end means that the bytes read so far are not the whole file. Dropping it removes the reply queue;
/// the server takes that for "client gone".
#[derive(Debug)]
pub struct Transfer {
    client: Client,
    path: PathBuf,
    attempt: Attempt,
    /// How much of the attempt's present bytes was read.
    consumed: usize,
    /// What the first attempt was told.
    meta: Option<Meta>,
    /// What was asked for.
    range: Range,
    /// What earlier attempts brought.
    before: u64,
    checksum_before: crc32fast::Hasher,
    /// Of that, what no END and no server has verified yet: where it begins, and its checksum.
    unverified: Option<(u64, crc32fast::Hasher)>,
    attempts: u32,
    tries: u32,
    /// Why there will be no end.
    failed: Option<Error>,
}

impl Transfer {
    pub(super) fn new(
        client: Client,
        path: PathBuf,
        range: Range,
        attempt: Attempt,
        tries: u32,
    ) -> Result<Self, Error> {
        let meta = attempt.meta;
        match meta {
            Some(meta) if meta.kind != Kind::Regular => {
                return Err(Error::Corrupt("not a regular file"));
            }
            Some(meta) if meta.offset != range.offset => return Err(Error::WRONG_BEGINNING),
            None if range != Range::WHOLE => return Err(Error::PlainServer),
            _ => {}
        }
        let checksum_before = crc32fast::Hasher::new();
        Ok(Self {
            client,
            path,
            attempt,
            consumed: 0,
            meta,
            range,
            before: 0,
            checksum_before,
            unverified: None,
            attempts: 1,
            tries,
            failed: None,
        })
    }

    /// What the server said of the file; None from a plain server.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// What the server said at the end of the last attempt, which that one's bytes were verified
    /// against; those of earlier attempts, the server compared with the file before it went on. None
    /// before the end, and from a plain server, whose transfers nothing verifies.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.attempt.trailer.as_ref()
    }

    /// The bytes that arrived so far.
    pub fn received(&self) -> u64 {
        self.before + self.attempt.received
    }

    /// The CRC-32 of the bytes that arrived so far, in all attempts.
    pub fn checksum(&self) -> u32 {
        let mut whole = self.checksum_before.clone();
        whole.combine(&self.attempt.checksum);
        whole.finalize()
    }

    /// How many requests brought bytes or were the last.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Takes the next message, of another attempt if need be.
    fn advance(&mut self) -> Result<(), Error> {
        self.consumed = 0;
        let outcome = self.attempt.advance().or_else(|error| match error {
            Error::Failed { errno: Some(Errno::ESTALE), .. } if self.before > 0 => {
                Err(Error::FileChanged)
            }
            error => self.resume(error),
        });
        match &outcome {
            // Whatever arrives earns another full number of tries.
            Ok(()) if !self.attempt.bytes().is_empty() => self.tries = self.client.retries(),
            Ok(()) => {}
            Err(error) => self.failed = Some(error.clone()),
        }
        outcome
    }

    /// Asks for the rest.
    fn resume(&mut self, lost: Error) -> Result<(), Error> {
        if !lost.is_passing() || !self.is_resumable() {
            return Err(lost);
        }
        let (received, checksum) = self.attempt.take_tally();
        if received > 0 {
            // Of what came before, the server was content before it sent any of this.
            self.unverified = Some((self.range.offset + self.before, checksum.clone()));
            self.attempts += 1;
        }
        self.before += received;
        self.checksum_before.combine(&checksum);
        let attempt = self.client.ask_again(&self.path, self.rest(), lost, &mut self.tries)?;
        if self.before == 0 {
            self.meta = attempt.meta;
        } else if !same_file(self.meta.as_ref(), attempt.meta.as_ref()) {
            return Err(Error::FileChanged);
        }
        let begin = self.range.offset + self.before;
        let is_whole = self.range == Range::WHOLE && begin == 0;
        if attempt.meta.map_or(!is_whole, |meta| meta.offset != begin) {
            return Err(Error::WRONG_BEGINNING);
        }
        self.attempt = attempt;
        Ok(())
    }

    /// What is to be asked for next.
    fn rest(&self) -> Operation<'static> {
        let Range { offset, length } = self.range;
        let length = length.map(|length| length.saturating_sub(self.before));
        let range = Range { offset: offset + self.before, length };
        match &self.unverified {
            Some((start, checksum)) => {
                let checksum = checksum.clone().finalize();
                Operation::Resume(range, Arrived { start: *start, checksum })
            }
            None => Operation::Fetch(range),
        }
    }

    /// A file without a size, as in /proc, may be another one each time it is read; and only an mqfs
    /// server can begin elsewhere than at the beginning.
    fn is_resumable(&self) -> bool {
        self.received() == 0 || self.meta.is_some_and(|meta| meta.size > 0)
    }
}

fn same_file(one: Option<&Meta>, other: Option<&Meta>) -> bool {
    let identity = |meta: &Meta| (meta.device, meta.inode, meta.size, meta.mtime);
    one.map(identity) == other.map(identity)
}

impl BufRead for Transfer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.consumed >= self.attempt.bytes().len()
            && !self.attempt.is_over()
            && self.failed.is_none()
        {
            let _ = self.advance();
        }
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        Ok(&self.attempt.bytes()[self.consumed..])
    }

    fn consume(&mut self, amount: usize) {
        self.consumed = self.attempt.bytes().len().min(self.consumed + amount);
    }
}

impl Read for Transfer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
