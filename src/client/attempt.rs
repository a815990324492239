//! One attempt at a transfer: one reply queue, from the first message to the last.

use nix::errno::Errno;

use super::reply_queue::ReplyQueue;
use super::{Error, failed};
use crate::sys::AdaptiveSpin;
use crate::wire::{Failure, MAX_REPLY, Meta, Reply, Trailer};
use sysv_ipc::{MessageBuffer, QueueLimits};

/// What one request brings.
#[derive(Debug)]
pub(super) struct Attempt {
    /// None once nothing more can come.
    queue: Option<ReplyQueue>,
    /// Bytes of the file, of one message or several.
    bytes: MessageBuffer,
    /// Why nothing comes behind them.
    failed: Option<Error>,
    has_looked: bool,
    pub(super) meta: Option<Meta>,
    pub(super) trailer: Option<Trailer>,
    pub(super) received: u64,
    pub(super) checksum: crc32fast::Hasher,
    patience: AdaptiveSpin,
}

impl Attempt {
    /// The least room to be tried for another message.
    const WORTHWHILE: usize = 8 << 10;

    /// The largest message to be taken, where `kernel.msgmax` lets a plain server send larger ones.
    const MAX_MESSAGE: usize = 1 << 20;

    /// Waits for the first message, so that what cannot be opened fails here.
    pub(super) fn begin(queue: ReplyQueue) -> Result<Self, Error> {
        let msgmax = QueueLimits::current()?.msgmax;
        let mut attempt = Self {
            queue: Some(queue),
            bytes: MessageBuffer::with_capacity(msgmax.clamp(MAX_REPLY, Self::MAX_MESSAGE)),
            failed: None,
            has_looked: false,
            meta: None,
            trailer: None,
            received: 0,
            checksum: crc32fast::Hasher::new(),
            patience: AdaptiveSpin::default(),
        };
        attempt.advance()?;
        Ok(attempt)
    }

    /// The bytes of the file that came last.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.text()
    }

    /// Whether the file has ended.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_none() && self.failed.is_none()
    }

    /// How much came, and its checksum; counted here no longer.
    pub(super) fn take_tally(&mut self) -> (u64, crc32fast::Hasher) {
        self.bytes.truncate(0);
        (std::mem::take(&mut self.received), std::mem::take(&mut self.checksum))
    }

    /// Takes the next message, and those behind it that are there already. The queue goes with the last
    /// one, and with an error.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.bytes.truncate(0);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.next_message() {
            Ok(()) => self.messages_behind(),
            Err(error) => {
                self.bytes.truncate(0);
                self.queue = None;
                return Err(error);
            }
        }
        if self.failed.is_some() {
            self.queue = None;
        }
        self.look_at_child(); // before whoever reads the bytes may keep us waiting
        Ok(())
    }

    /// What takes more than a message may take a while. By the time that somebody asks whether the child
    /// lives, its pid may be another's.
    fn look_at_child(&mut self) {
        if let Some(queue) = &self.queue
            && self.received > Self::WORTHWHILE as u64
            && !self.has_looked
        {
            queue.watched.look_at_child();
            self.has_looked = true;
        }
    }

    /// Waits for a message.
    fn next_message(&mut self) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let (watched, which) = (&queue.watched, queue.select());
        let bytes = &mut self.bytes;
        match self.patience.attempt(|| watched.try_receive(bytes, which)) {
            Some(outcome) => outcome?,
            None => watched.receive(bytes, which)?,
        }
        self.take(0)
    }

    /// Takes messages as long as there are any: a queue that is emptied at once is filled while its
    /// bytes are used. What fails here says nothing against the bytes that came before.
    fn messages_behind(&mut self) {
        while let Some(queue) = &self.queue
            && self.bytes.has_room_behind(Self::WORTHWHILE)
            && self.failed.is_none()
        {
            let at = self.bytes.text().len();
            let Some(received) = queue.watched.receive_behind(&mut self.bytes, queue.select())
            else {
                return;
            };
            if let Err(error) = received.and_then(|()| self.take(at)) {
                self.bytes.truncate(at);
                self.failed = Some(error);
            }
        }
    }

    /// Does what the message says whose text begins here. Only bytes of the file stay.
    fn take(&mut self, at: usize) -> Result<(), Error> {
        match Reply::decode(self.bytes.mtype(), &self.bytes.text()[at..])? {
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
            // What a server says of a child that could not say it itself.
            Reply::Failure(Failure { errno: Some(Errno::EOWNERDEAD), .. }) => {
                return Err(Error::ChildDied);
            }
            Reply::Failure(failure) => return Err(failed(failure)),
        }
        self.bytes.truncate(at);
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
