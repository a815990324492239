//! The packed messages of a listing or a tree, in the DATA of one answer or several.

use std::path::{Path, PathBuf};

use sysv_ipc::MessageType;

use super::answer::Answer;
use super::error::{Cause, Error};
use super::requester::Requester;
use crate::wire::{Meta, Operation, Packed, Reply, Start};

/// Packed messages, one after the other.
#[derive(Debug)]
pub(super) struct Stream {
    requester: Requester,
    path: PathBuf,
    /// What to ask for, from the beginning.
    operation: Operation<'static>,
    pub(super) answer: Answer,
    /// The META of the first answer.
    pub(super) meta: Meta,
    /// Where the last request asked to start: a path, and the bytes and checksum that had arrived.
    last_start: (Vec<u8>, Option<(u64, u32)>),
}

impl Stream {
    pub(super) fn open(
        mut requester: Requester,
        path: &Path,
        operation: Operation<'static>,
    ) -> Result<Self, Error> {
        let answer = requester.ask(path, operation)?;
        let meta = answer.meta.ok_or(Error(Cause::PlainServer))?;
        Ok(Self {
            requester,
            path: path.to_owned(),
            operation,
            answer,
            meta,
            last_start: (Vec::new(), None),
        })
    }

    /// Asks for the rest from `start` on, after an answer was `lost`.
    pub(super) fn resume(&mut self, start: Start<'_>, lost: Error) -> Result<(), Error> {
        if !lost.is_retryable() {
            return Err(lost);
        }
        if (&self.last_start.0[..], self.last_start.1) != (start.path, start.arrived) {
            self.requester.restore_retries();
            self.last_start = (start.path.to_vec(), start.arrived);
        }
        let operation = match self.operation {
            Operation::List(_) => Operation::List(start),
            Operation::Tree(_) => Operation::Tree(start),
            other => other,
        };
        let answer = self.requester.ask_again(&self.path, operation, lost)?;
        let identity = |meta: &Meta| (meta.device, meta.inode, meta.kind);
        if answer.meta.as_ref().map(identity) != Some(identity(&self.meta)) {
            return Err(Cause::FileChanged.into());
        }
        self.answer = answer;
        Ok(())
    }

    /// The bytes that are available, receiving some if there are none. Empty at the end, after
    /// count and checksum were verified.
    pub(super) fn fill(&mut self) -> Result<&[u8], Error> {
        while self.answer.bytes().is_empty() && !self.answer.is_over() {
            self.answer.advance()?;
        }
        Ok(self.answer.bytes())
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

    /// Reads the next message, which must not be DATA: returns its type, and fills in its text.
    /// None at the end.
    pub(super) fn next_message(
        &mut self,
        text: &mut Vec<u8>,
    ) -> Result<Option<MessageType>, Error> {
        let Some(header) = self.next_header()? else { return Ok(None) };
        if header.mtype == Reply::DATA {
            return Err(Error::corrupt("bytes that belong to no file"));
        }
        self.read_text(header, text)?;
        Ok(Some(header.mtype))
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
                return Err(Error::corrupt("the bytes end within a message"));
            }
            let count = bytes.len().min(buffer.len());
            let (now, rest) = buffer.split_at_mut(count);
            now.copy_from_slice(&bytes[..count]);
            buffer = rest;
            self.answer.consume(count);
        }
        Ok(())
    }
}

/// Whether a directory can have an entry of this name: a server may send other names.
pub(super) fn is_entry_name(name: &[u8]) -> bool {
    let has_bad_byte = || name.iter().any(|&byte| byte == 0 || byte == b'/');
    !matches!(name, b"" | b"." | b"..") && name.len() <= 255 && !has_bad_byte()
}
