//! The packed messages of a listing or a tree, in the DATA of one answer or several.

use std::path::{Path, PathBuf};

use super::answer::Answer;
use super::error::{Cause, Error};
use super::requester::Requester;
use crate::wire::{Meta, Operation, Packed, Start};

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Stat { follow: bool },
    List,
    Tree,
}

impl Wanted {
    fn from(self, start: Start<'_>) -> Operation<'_> {
        match self {
            Self::Stat { follow } => Operation::Stat { follow },
            Self::List => Operation::List(start),
            Self::Tree => Operation::Tree(start),
        }
    }
}

/// Packed messages, one after the other.
#[derive(Debug)]
pub(super) struct Stream {
    requester: Requester,
    path: PathBuf,
    wanted: Wanted,
    answer: Answer,
    /// How many of the answer's present bytes were consumed.
    consumed: usize,
    /// The META of the first answer.
    pub(super) meta: Meta,
    /// Where the last request asked to start: a path, and the bytes and checksum that had arrived.
    last_start: (Vec<u8>, Option<(u64, u32)>),
}

impl Stream {
    pub(super) fn open(
        mut requester: Requester,
        path: &Path,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let answer = requester.ask(path, wanted.from(Start::BEGINNING))?;
        let meta = answer.meta.ok_or(Error(Cause::PlainServer))?;
        Ok(Self {
            requester,
            path: path.to_owned(),
            wanted,
            answer,
            consumed: 0,
            meta,
            last_start: (Vec::new(), None),
        })
    }

    /// Asks for the rest from `start` on, after an answer was `lost`.
    pub(super) fn ask_again(&mut self, start: Start<'_>, lost: Error) -> Result<(), Error> {
        if !lost.is_retryable() {
            return Err(lost);
        }
        if (&self.last_start.0[..], self.last_start.1) != (start.path, start.arrived) {
            self.requester.restore_retries();
            self.last_start = (start.path.to_vec(), start.arrived);
        }
        let operation = self.wanted.from(start);
        let answer = self.requester.ask_again(&self.path, operation, lost)?;
        let identity = |meta: &Meta| (meta.device, meta.inode, meta.kind);
        if answer.meta.as_ref().map(identity) != Some(identity(&self.meta)) {
            return Err(Cause::FileChanged.into());
        }
        (self.answer, self.consumed) = (answer, 0);
        Ok(())
    }

    /// The bytes that are available, receiving some if there are none. Empty at the end, after
    /// count and checksum were verified.
    pub(super) fn fill(&mut self) -> Result<&[u8], Error> {
        while self.consumed >= self.answer.bytes().len() && !self.answer.is_over() {
            self.consumed = 0;
            self.answer.advance()?;
        }
        Ok(self.bytes())
    }

    /// The bytes that are available without receiving.
    pub(super) fn bytes(&self) -> &[u8] {
        self.answer.bytes().get(self.consumed..).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.consumed += count;
    }

    /// The header of the next message; None at the end.
    pub(super) fn next_header(&mut self) -> Result<Option<Packed>, Error> {
        if self.fill()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; Packed::SIZE];
        self.read_exact(&mut bytes)?;
        Ok(Some(Packed::decode(&bytes)?))
    }

    /// Reads the text of a message that is not DATA.
    pub(super) fn read_text(&mut self, header: Packed, text: &mut Vec<u8>) -> Result<(), Error> {
        text.resize(header.length as usize, 0);
        self.read_exact(text)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), Error> {
        while !buffer.is_empty() {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(Error::corrupt("it ends within a message"));
            }
            let count = bytes.len().min(buffer.len());
            let (now, rest) = buffer.split_at_mut(count);
            now.copy_from_slice(&bytes[..count]);
            buffer = rest;
            self.consume(count);
        }
        Ok(())
    }
}

/// Whether a directory can have an entry of this name. A server is not trusted to send only such.
pub(super) fn is_entry_name(name: &[u8]) -> bool {
    let has_bad_byte = || name.iter().any(|&byte| byte == 0 || byte == b'/');
    !matches!(name, b"" | b"." | b"..") && name.len() <= 255 && !has_bad_byte()
}
