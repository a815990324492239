//! One attempt at a transfer: one reply queue, from the first message to the last.

use super::Error;
use super::reply_queue::ReplyQueue;
use crate::process::Patience;
use crate::sysv::{Limits, MessageBuffer};
use crate::wire::{MAX_REPLY, Meta, Reply, Trailer};

/// What one request brings.
#[derive(Debug)]
pub(super) struct Attempt {
    /// None once nothing more can come.
    queue: Option<ReplyQueue>,
    message: MessageBuffer,
    holds_data: bool,
    pub(super) meta: Option<Meta>,
    pub(super) trailer: Option<Trailer>,
    pub(super) received: u64,
    pub(super) checksum: crc32fast::Hasher,
    patience: Patience,
}

impl Attempt {
    /// The buffer's size where `kernel.msgmax` is larger: a message of a plain server may be as
    /// large as it likes.
    const MAX_BUFFER: usize = 1 << 20;

    /// Waits for the first message, so that what cannot be opened fails here.
    pub(super) fn begin(queue: ReplyQueue) -> Result<Self, Error> {
        let msgmax = Limits::current()?.msgmax;
        let mut attempt = Self {
            queue: Some(queue),
            message: MessageBuffer::with_capacity(msgmax.clamp(MAX_REPLY, Self::MAX_BUFFER)),
            holds_data: false,
            meta: None,
            trailer: None,
            received: 0,
            checksum: crc32fast::Hasher::new(),
            patience: Patience::default(),
        };
        attempt.advance()?;
        Ok(attempt)
    }

    /// The bytes of the file in the message that came last.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.holds_data { self.message.text() } else { &[] }
    }

    /// Whether the file has ended.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_none()
    }

    /// How much came, and its checksum; counted here no longer.
    pub(super) fn take_tally(&mut self) -> (u64, crc32fast::Hasher) {
        self.holds_data = false;
        (std::mem::take(&mut self.received), std::mem::take(&mut self.checksum))
    }

    /// Takes the next message. The queue goes with the last one, and with an error.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        let outcome = self.next_message();
        if outcome.is_err() {
            self.queue = None;
        }
        outcome
    }

    fn next_message(&mut self) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let (watched, which) = (&queue.watched, queue.select());
        let message = &mut self.message;
        self.holds_data = false;
        match self.patience.attempt(|| watched.try_receive(message, which)) {
            Some(outcome) => outcome?,
            None => watched.receive(message, which)?,
        }
        match Reply::decode(self.message.mtype(), self.message.text())? {
            Reply::Data(bytes) => {
                self.checksum.update(bytes); // while the bytes are in the cache
                self.received += bytes.len() as u64;
                self.holds_data = true;
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
