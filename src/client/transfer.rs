//! A file on its way: messages in, bytes out, verified at the end.

use std::io::{self, BufRead, Read};

use super::Error;
use super::reply_queue::ReplyQueue;
use crate::process::Patience;
use crate::sysv::{Limits, MessageBuffer};
use crate::wire::{MAX_REPLY, Meta, Reply, Trailer};

/// A file that arrives. Reading yields its bytes and, once all are there and verified, the end.
///
/// An error in place of the end means that the bytes read so far are not the whole file. Dropping
/// it removes the reply queue; the server takes that for "client gone".
#[derive(Debug)]
pub struct Transfer {
    /// None once nothing more can come.
    queue: Option<ReplyQueue>,
    message: MessageBuffer,
    consumed: usize,
    meta: Option<Meta>,
    trailer: Option<Trailer>,
    received: u64,
    checksum: crc32fast::Hasher,
    patience: Patience,
    /// Why there will be no end.
    failed: Option<Error>,
}

impl Transfer {
    /// The buffer's size where `kernel.msgmax` is larger: a message of a plain server may be as
    /// large as it likes.
    const MAX_BUFFER: usize = 1 << 20;

    /// Waits for the first message, so that what cannot be opened fails here.
    pub(super) fn begin(queue: ReplyQueue) -> Result<Self, Error> {
        let msgmax = Limits::current()?.msgmax;
        let mut transfer = Self {
            queue: Some(queue),
            message: MessageBuffer::with_capacity(msgmax.clamp(MAX_REPLY, Self::MAX_BUFFER)),
            consumed: 0,
            meta: None,
            trailer: None,
            received: 0,
            checksum: crc32fast::Hasher::new(),
            patience: Patience::default(),
            failed: None,
        };
        transfer.advance()?;
        Ok(transfer)
    }

    /// What the server said of the file; None from a plain server.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// What the server said at the end, which the bytes were verified against. None before the end,
    /// and from a plain server, whose transfers nothing verifies.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// The bytes that arrived so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next message.
    fn advance(&mut self) -> Result<(), Error> {
        let outcome = self.next_message();
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
            self.queue = None;
        }
        outcome
    }

    fn next_message(&mut self) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let (watched, which) = (&queue.watched, queue.select());
        let message = &mut self.message;
        self.consumed = 0;
        match self.patience.attempt(|| watched.try_receive(message, which)) {
            Some(outcome) => outcome?,
            None => watched.receive(message, which)?,
        }
        match Reply::decode(self.message.mtype(), self.message.text())? {
            Reply::Data(bytes) => {
                self.checksum.update(bytes); // while the bytes are in the cache
                self.received += bytes.len() as u64;
                return Ok(());
            }
            Reply::Meta(_) if self.meta.is_some() || self.received > 0 => {
                return Err(Error::Corrupt("a second beginning"));
            }
            Reply::Meta(meta) => self.meta = Some(meta),
            Reply::End(trailer) => {
                self.verify(trailer.as_ref())?;
                self.trailer = trailer;
                self.queue = None;
            }
            Reply::Failure(failure) => {
                let text = String::from_utf8_lossy(&failure.text).into_owned();
                let text = if text.is_empty() { "the server gave no reason".into() } else { text };
                return Err(Error::Failed { text, errno: failure.errno });
            }
        }
        self.consumed = self.message.text().len(); // nothing of it is the file's
        Ok(())
    }

    fn verify(&self, trailer: Option<&Trailer>) -> Result<(), Error> {
        match (self.meta, trailer) {
            (_, Some(trailer)) if trailer.bytes != self.received => {
                Err(Error::Corrupt("not as many bytes arrived as were sent"))
            }
            (_, Some(trailer)) if trailer.checksum != self.checksum.clone().finalize() => {
                Err(Error::Corrupt("the checksum is not that of the bytes sent"))
            }
            (Some(_), None) => Err(Error::Corrupt("no count and checksum at the end")),
            _ => Ok(()),
        }
    }
}

impl BufRead for Transfer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.consumed >= self.message.text().len() && self.queue.is_some() {
            self.advance()?;
        }
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        Ok(&self.message.text()[self.consumed..])
    }

    fn consume(&mut self, amount: usize) {
        self.consumed = self.message.text().len().min(self.consumed + amount);
    }
}

impl Read for Transfer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
