//! Packed messages out of the DATA of a listing or a tree, over several requests if need be.

use std::path::PathBuf;

use super::attempt::Attempt;
use super::{Client, Error};
use crate::wire::{Meta, Operation, Packed, Start};

/// What is asked for.
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
    client: Client,
    path: PathBuf,
    wanted: Wanted,
    attempt: Attempt,
    /// How much of the attempt's present bytes was taken.
    taken: usize,
    /// What the first request was told of the top.
    pub(super) meta: Meta,
    tries: u32,
    /// Where the last request was to begin.
    began: (Vec<u8>, Option<(u64, u32)>),
    /// How many requests it took.
    pub(super) requests: u32,
}

impl Stream {
    pub(super) fn open(client: &Client, path: PathBuf, wanted: Wanted) -> Result<Self, Error> {
        let mut tries = client.retries();
        let attempt = client.begin(&path, wanted.from(Start::BEGINNING), &mut tries)?;
        let meta = attempt.meta.ok_or(Error::PlainServer)?;
        let (client, began) = (client.clone(), (Vec::new(), None));
        Ok(Self { client, path, wanted, attempt, taken: 0, meta, tries, began, requests: 1 })
    }

    /// Asks for the rest, after an answer was lost.
    pub(super) fn go_on(&mut self, start: Start<'_>, lost: Error) -> Result<(), Error> {
        if !lost.is_passing() {
            return Err(lost);
        }
        // Whoever came further earns another full number of tries.
        if (&self.began.0[..], self.began.1) != (start.path, start.arrived) {
            self.tries = self.client.retries();
            self.began = (start.path.to_vec(), start.arrived);
        }
        let operation = self.wanted.from(start);
        let attempt = self.client.ask_again(&self.path, operation, lost, &mut self.tries)?;
        let identity = |meta: &Meta| (meta.device, meta.inode, meta.kind);
        if attempt.meta.as_ref().map(identity) != Some(identity(&self.meta)) {
            return Err(Error::FileChanged);
        }
        (self.attempt, self.taken) = (attempt, 0);
        self.requests += 1;
        Ok(())
    }

    /// The bytes that are there; none at the end, when count and checksum were right.
    pub(super) fn fill(&mut self) -> Result<&[u8], Error> {
        while self.taken >= self.attempt.bytes().len() && !self.attempt.is_over() {
            self.taken = 0;
            self.attempt.advance()?;
        }
        Ok(self.bytes())
    }

    /// The same, of what is there already.
    pub(super) fn bytes(&self) -> &[u8] {
        self.attempt.bytes().get(self.taken..).unwrap_or_default()
    }

    pub(super) fn take(&mut self, count: usize) {
        self.taken += count;
    }

    /// The opening of the next message; None at the end.
    pub(super) fn opening(&mut self) -> Result<Option<Packed>, Error> {
        if self.fill()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; Packed::SIZE];
        self.read(&mut bytes)?;
        Ok(Some(Packed::decode(&bytes)?))
    }

    /// The text of a message that is not DATA.
    pub(super) fn text(&mut self, packed: Packed, text: &mut Vec<u8>) -> Result<(), Error> {
        text.resize(packed.length as usize, 0);
        self.read(text)
    }

    fn read(&mut self, mut room: &mut [u8]) -> Result<(), Error> {
        while !room.is_empty() {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(Error::Corrupt("it ends within a message"));
            }
            let count = bytes.len().min(room.len());
            let (now, rest) = room.split_at_mut(count);
            now.copy_from_slice(&bytes[..count]);
            room = rest;
            self.take(count);
        }
        Ok(())
    }
}

/// Whether a directory can have an entry of this name. What a server says is not taken for granted.
pub(super) fn is_name(name: &[u8]) -> bool {
    let has_bad_byte = || name.iter().any(|&byte| byte == 0 || byte == b'/');
    !matches!(name, b"" | b"." | b"..") && name.len() <= 255 && !has_bad_byte()
}
