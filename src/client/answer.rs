//! The answer to one request: one reply queue, from the first message to the last.

use nix::errno::Errno;
use sysv_ipc::{MessageBuffer, QueueLimits};

use super::error::{Cause, Error};
use super::reply_queue::ReplyQueue;
use super::tally::Tally;
use crate::sys::AdaptiveSpin;
use crate::wire::{Failure, MAX_REPLY, Meta, Reply, Trailer};

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    /// None once nothing more can come.
    queue: Option<ReplyQueue>,
    /// Bytes of the file, from one message or several.
    buffer: MessageBuffer,
    /// How many of them were read.
    consumed: usize,
    /// The error that follows those bytes.
    failed: Option<Error>,
    pub(super) meta: Option<Meta>,
    pub(super) trailer: Option<Trailer>,
    pub(super) tally: Tally,
    spin: AdaptiveSpin,
}

impl Answer {
    /// With less room than this in the buffer, receiving another message is not worth a try.
    const WORTHWHILE_ROOM: usize = 8 << 10;

    /// A transfer of more bytes than this may last longer than its child.
    const LONGER_TRANSFER: u64 = 8 << 10;

    /// The largest message to accept. `kernel.msgmax` may let a plain server send larger ones.
    const MAX_MESSAGE: usize = 1 << 20;

    /// Waits for the first message, so that a refused request fails here.
    pub(super) fn begin(queue: ReplyQueue) -> Result<Self, Error> {
        let msgmax = QueueLimits::current()?.msgmax;
        let mut answer = Self {
            queue: Some(queue),
            buffer: MessageBuffer::with_capacity(msgmax.clamp(MAX_REPLY, Self::MAX_MESSAGE)),
            consumed: 0,
            failed: None,
            meta: None,
            trailer: None,
            tally: Tally::default(),
            spin: AdaptiveSpin::default(),
        };
        answer.advance()?;
        Ok(answer)
    }

    /// The bytes that arrived and were not read yet.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer.text()[self.consumed..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.consumed = self.buffer.text().len().min(self.consumed + count);
    }

    /// Whether the answer has ended, and was verified.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_none() && self.failed.is_none()
    }

    /// Receives the next message, and those that already wait behind it. Removes the queue after
    /// the last message and after an error.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.buffer.truncate(0);
        self.consumed = 0;
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.next_message() {
            Ok(()) => self.receive_waiting(),
            Err(error) => {
                self.buffer.truncate(0);
                self.queue = None;
                return Err(error);
            }
        }
        if self.failed.is_some() {
            self.queue = None;
        }
        if let Some(queue) = &self.queue
            && self.tally.bytes > Self::LONGER_TRANSFER
        {
            // Identify it while it is alive: the reader of the bytes may take its time.
            queue.watched.identify_child();
        }
        Ok(())
    }

    /// Receives a message, waiting for it.
    fn next_message(&mut self) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Ok(()) };
        match self.spin.attempt(|| queue.watched.try_receive(&mut self.buffer)) {
            Some(outcome) => outcome?,
            None => queue.watched.receive(&mut self.buffer)?,
        }
        self.take(0)
    }

    /// Receives messages while there are any, so that the server refills the queue while the reader
    /// uses the bytes. An error here is kept until the reader has had the bytes before it.
    fn receive_waiting(&mut self) {
        while let Some(queue) = &self.queue
            && self.buffer.has_room_for(Self::WORTHWHILE_ROOM)
            && self.failed.is_none()
        {
            let at = self.buffer.text().len();
            let Some(received) = queue.watched.receive_appending(&mut self.buffer) else {
                return;
            };
            if let Err(error) = received.and_then(|()| self.take(at)) {
                self.buffer.truncate(at);
                self.failed = Some(error);
            }
        }
    }

    /// Interprets the message whose text begins at `at`. Only bytes of the file stay in the buffer.
    fn take(&mut self, at: usize) -> Result<(), Error> {
        match Reply::decode(self.buffer.mtype(), &self.buffer.text()[at..])? {
            Reply::Data(bytes) => {
                self.tally.add(bytes); // while the bytes are in the cache
                return Ok(());
            }
            Reply::Meta(_) if self.meta.is_some() || self.tally.bytes > 0 => {
                return Err(Error::corrupt("a second beginning"));
            }
            Reply::Meta(meta) => self.meta = Some(meta),
            Reply::End(trailer) => {
                match &trailer {
                    Some(trailer) => self.tally.verify(trailer)?,
                    None if self.meta.is_some() => {
                        return Err(Error::corrupt("no count and checksum at the end"));
                    }
                    None => {}
                }
                self.trailer = trailer;
                self.queue = None;
            }
            // The server reports a child that died.
            Reply::Failure(Failure { errno: Some(Errno::EOWNERDEAD), .. }) => {
                return Err(Cause::ChildDied.into());
            }
            Reply::Failure(failure) => return Err(failure.into()),
        }
        self.buffer.truncate(at);
        Ok(())
    }
}
