//! The answer to one request: one reply queue, from the first message to the last.

use nix::errno::Errno;

use super::error::{Cause, Error};
use super::reply_queue::ReplyQueue;
use crate::sys::AdaptiveSpin;
use crate::wire::{Failure, MAX_REPLY, Meta, Reply, Trailer};
use sysv_ipc::{MessageBuffer, QueueLimits};

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    /// None once nothing more can come.
    queue: Option<ReplyQueue>,
    /// Bytes of the file, from one message or several.
    bytes: MessageBuffer,
    /// The error that follows those bytes.
    failed: Option<Error>,
    /// Whether the watch knows the child that sends the answer.
    knows_child: bool,
    pub(super) meta: Option<Meta>,
    pub(super) trailer: Option<Trailer>,
    pub(super) received: u64,
    pub(super) checksum: crc32fast::Hasher,
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
            bytes: MessageBuffer::with_capacity(msgmax.clamp(MAX_REPLY, Self::MAX_MESSAGE)),
            failed: None,
            knows_child: false,
            meta: None,
            trailer: None,
            received: 0,
            checksum: crc32fast::Hasher::new(),
            spin: AdaptiveSpin::default(),
        };
        answer.advance()?;
        Ok(answer)
    }

    /// The bytes of the file that arrived last.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.text()
    }

    /// Whether the answer has ended, and was verified.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_none() && self.failed.is_none()
    }

    /// Takes the count and checksum of the bytes that arrived; they start anew.
    pub(super) fn take_tally(&mut self) -> (u64, crc32fast::Hasher) {
        self.bytes.truncate(0);
        (std::mem::take(&mut self.received), std::mem::take(&mut self.checksum))
    }

    /// Receives the next message, and those that already wait behind it. Removes the queue after
    /// the last message and after an error.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.bytes.truncate(0);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.next_message() {
            Ok(()) => self.receive_waiting(),
            Err(error) => {
                self.bytes.truncate(0);
                self.queue = None;
                return Err(error);
            }
        }
        if self.failed.is_some() {
            self.queue = None;
        }
        self.identify_child(); // while it is alive: the reader of the bytes may take its time
        Ok(())
    }

    /// Lets the watch identify the child of a longer transfer, so that it can later tell the child
    /// from another process that has its pid by then.
    fn identify_child(&mut self) {
        if let Some(queue) = &self.queue
            && self.received > Self::LONGER_TRANSFER
            && !self.knows_child
        {
            queue.watched.identify_child();
            self.knows_child = true;
        }
    }

    /// Receives a message, waiting for it.
    fn next_message(&mut self) -> Result<(), Error> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let (watched, which) = (&queue.watched, queue.select());
        let bytes = &mut self.bytes;
        match self.spin.attempt(|| watched.try_receive(bytes, which)) {
            Some(outcome) => outcome?,
            None => watched.receive(bytes, which)?,
        }
        self.take(0)
    }

    /// Receives messages while there are any, so that the server refills the queue while the reader
    /// uses the bytes. An error here is kept until the reader has had the bytes before it.
    fn receive_waiting(&mut self) {
        while let Some(queue) = &self.queue
            && self.bytes.has_room_for(Self::WORTHWHILE_ROOM)
            && self.failed.is_none()
        {
            let at = self.bytes.text().len();
            let Some(received) = queue.watched.receive_appending(&mut self.bytes, queue.select())
            else {
                return;
            };
            if let Err(error) = received.and_then(|()| self.take(at)) {
                self.bytes.truncate(at);
                self.failed = Some(error);
            }
        }
    }

    /// Interprets the message whose text begins at `at`. Only bytes of the file stay in the buffer.
    fn take(&mut self, at: usize) -> Result<(), Error> {
        match Reply::decode(self.bytes.mtype(), &self.bytes.text()[at..])? {
            Reply::Data(bytes) => {
                self.checksum.update(bytes); // while the bytes are in the cache
                self.received += bytes.len() as u64;
                return Ok(());
            }
            Reply::Meta(_) if self.meta.is_some() || self.received > 0 => {
                return Err(Error::corrupt("a second beginning"));
            }
            Reply::Meta(meta) => self.meta = Some(meta),
            Reply::End(trailer) => {
                self.verify(trailer.as_ref())?;
                self.trailer = trailer;
                self.queue = None;
            }
            // The server reports a child that died.
            Reply::Failure(Failure { errno: Some(Errno::EOWNERDEAD), .. }) => {
                return Err(Cause::ChildDied.into());
            }
            Reply::Failure(failure) => return Err(failure.into()),
        }
        self.bytes.truncate(at);
        Ok(())
    }

    fn verify(&self, trailer: Option<&Trailer>) -> Result<(), Error> {
        match (self.meta, trailer) {
            (_, Some(trailer)) if trailer.bytes != self.received => {
                Err(Error::corrupt("not as many bytes arrived as were sent"))
            }
            (_, Some(trailer)) if trailer.checksum != self.checksum.clone().finalize() => {
                Err(Error::corrupt("the checksum is not that of the bytes sent"))
            }
            (Some(_), None) => Err(Error::corrupt("no count and checksum at the end")),
            _ => Ok(()),
        }
    }
}
