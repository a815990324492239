//! The messages of one reply queue, as the parts of answers.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::unistd::write;
use sysv_ipc::{MessageBuffer, QueueLimits};

use super::error::{Cause, Error};
use super::reply_watch::WatchedQueue;
use super::window::Window;
use crate::sys::AdaptiveSpin;
use crate::wire::{Cookie, Failure, FrameHeader, FrameType, MAX_REPLY, Malformed};

/// Receives the messages of one reply queue. The DATA of an mqfs server are together a stream of
/// frames. Of a plain server, each part of the answer is a message.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) queue: WatchedQueue,
    buffer: MessageBuffer,
    taken: usize,
    /// How many bytes of our cookie have yet to arrive: the stream opens with it.
    cookie_left: usize,
    pub(super) pending: Option<Result<FrameType, Error>>,
    /// How many bytes are left of the current DATA frame.
    left: usize,
    pub(super) window: Window,
    /// Whether the last message that arrived was, or looked like, a WINDOW.
    saw_window: bool,
    /// The text of the last part that is not DATA.
    pub(super) text: Vec<u8>,
    spin: AdaptiveSpin,
    pub(super) received_at: Instant,
    pub(super) received: u64,
}

impl Inbox {
    /// After a pause of this long, the queue may have been removed, and its id be another queue's.
    pub(super) const PAUSE: Duration = Duration::from_secs(1);

    const WORTHWHILE_ROOM: usize = 8 << 10;

    /// The buffer's first size: that of a message by default. Most answers need no more, and each
    /// page costs a page fault.
    const SMALL: usize = 8 << 10;

    /// The largest message to accept. `kernel.msgmax` may let a plain server send larger ones.
    const MAX_MESSAGE: usize = 1 << 20;

    /// An answer of more bytes than this may take longer than its child lives.
    const LONG_ANSWER: u64 = 8 << 10;

    /// Waits for the first message. A request that was refused fails here.
    pub(super) fn begin(queue: WatchedQueue, windows: bool) -> Result<Self, Error> {
        let window = Window::new(windows.then(|| queue.window_owner()));
        let cookie_left = if queue.is_framed() { size_of::<Cookie>() } else { 0 };
        let mut inbox = Self {
            queue,
            cookie_left,
            buffer: MessageBuffer::with_capacity(Self::SMALL),
            taken: 0,
            pending: None,
            left: 0,
            window,
            saw_window: false,
            text: Vec::new(),
            spin: AdaptiveSpin::default(),
            received_at: Instant::now(),
            received: 0,
        };
        while inbox.is_empty() {
            inbox.receive()?;
        }
        match &inbox.pending {
            Some(Ok(FrameType::Failure)) => Err(inbox.failure()),
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(inbox),
        }
    }

    /// Waits for the next part of the answer to the question with this number. Of DATA, some bytes
    /// are there then; of other parts, all the text.
    pub(super) fn next(&mut self, question: u16) -> Result<FrameType, Error> {
        if !self.window.is_empty() || !self.queue.is_framed() {
            return self.fill();
        }
        while self.left == 0 {
            let mut header = [0; FrameHeader::SIZE];
            self.read_exact(&mut header)?;
            let header = FrameHeader::decode(&header)?;
            if header.question != question && header.frame_type != FrameType::Farewell {
                return Err(Error::corrupt("an answer to another question"));
            }
            if header.frame_type != FrameType::Data {
                let mut text = vec![0; header.length as usize];
                self.read_exact(&mut text)?;
                self.text = text;
                // The bytes of a WINDOW are DATA.
                return match header.frame_type {
                    FrameType::Window => self.window.open(&self.text).map(|()| FrameType::Data),
                    part => Ok(part),
                };
            }
            self.left = header.length as usize;
        }
        self.fill()
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.window.is_empty() || !self.message_bytes().is_empty()
    }

    /// The bytes of the current DATA that are there, or the first of them.
    pub(super) fn bytes(&mut self) -> &[u8] {
        if self.window.is_empty() { self.message_bytes() } else { self.window.bytes() }
    }

    fn message_bytes(&self) -> &[u8] {
        let bytes = &self.buffer.text()[self.taken..];
        if self.queue.is_framed() { &bytes[..self.left.min(bytes.len())] } else { bytes }
    }

    pub(super) fn consume(&mut self, count: usize) {
        if !self.window.is_empty() {
            return self.window.consume(count);
        }
        self.taken += count;
        self.left = self.left.saturating_sub(count);
    }

    pub(super) fn write_to(
        &mut self,
        file: BorrowedFd<'_>,
        mut show: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        if !self.window.is_empty() {
            return self.window.write_to(file, show);
        }
        let bytes = self.message_bytes();
        let count = write(file, bytes)?;
        show(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }

    pub(super) fn failure(&self) -> Error {
        Failure::decode(&self.text).into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.buffer.text().len() && self.pending.is_none()
    }

    /// Receives until there are bytes of DATA or, of a plain server, another part.
    fn fill(&mut self) -> Result<FrameType, Error> {
        while self.window.is_empty() && self.taken == self.buffer.text().len() {
            match self.pending.take() {
                None => self.receive()?,
                Some(Ok(_)) if self.queue.is_framed() => {
                    return Err(Error::corrupt("a message that is no part of the stream"));
                }
                Some(Ok(part)) => return Ok(part),
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(FrameType::Data)
    }

    fn read_exact(&mut self, mut to: &mut [u8]) -> Result<(), Error> {
        while !to.is_empty() {
            self.fill()?;
            let bytes = &self.buffer.text()[self.taken..];
            let count = bytes.len().min(to.len());
            to[..count].copy_from_slice(&bytes[..count]);
            self.taken += count;
            to = &mut to[count..];
        }
        Ok(())
    }

    /// Waits for a message, and takes those that already wait behind it, so that the server refills
    /// the queue while the reader uses the bytes.
    fn receive(&mut self) -> Result<(), Error> {
        self.buffer.truncate(0);
        (self.taken, self.saw_window) = (0, false);
        if self.received > Self::LONG_ANSWER {
            self.grow()?;
        }
        while !self.receive_one()? {
            if !self.grow()? {
                return Err(Error::corrupt("a message larger than any buffer"));
            }
        }
        self.take(0);
        // The bytes of a WINDOW stand in the segment until the next message is received.
        while self.pending.is_none()
            && self.cookie_left == 0
            && !self.saw_window
            && self.buffer.has_room_for(Self::WORTHWHILE_ROOM)
        {
            let at = self.buffer.text().len();
            match self.queue.try_receive(&mut self.buffer) {
                None | Some(Ok(false)) => break,
                Some(Ok(true)) => self.take(at),
                Some(Err(error)) => self.pending = Some(Err(error)),
            }
        }
        // A server removes the queue of a session whose client received nothing for three seconds.
        // Then its id may be given to another user's queue, and anyone could answer there.
        let now = Instant::now();
        let pause = now - std::mem::replace(&mut self.received_at, now);
        if self.queue.session && pause >= Self::PAUSE && self.queue.is_lost() {
            self.buffer.truncate(0);
            return Err(Cause::QueueRemoved.into());
        }
        self.received += self.buffer.text().len() as u64;
        if self.saw_window || self.received > Self::LONG_ANSWER {
            // Identify it while it is alive: the reader of the bytes may take its time.
            self.queue.identify_child();
        }
        Ok(())
    }

    /// Waits for a message. False: the buffer, which is empty, has no room for it.
    fn receive_one(&mut self) -> Result<bool, Error> {
        let try_receive = || self.queue.try_receive(&mut self.buffer);
        // The server must fork first, which takes longer than trying.
        let tried = if self.received == 0 { None } else { self.spin.attempt(try_receive) };
        tried.unwrap_or_else(|| self.queue.receive(&mut self.buffer))
    }

    /// Makes room in the buffer, which is empty, for every message to accept. False: there was.
    fn grow(&mut self) -> Result<bool, Error> {
        if self.buffer.capacity() > Self::SMALL {
            return Ok(false);
        }
        let most = QueueLimits::current()?.msgmax.clamp(MAX_REPLY, Self::MAX_MESSAGE);
        self.buffer = MessageBuffer::with_capacity(most);
        Ok(true)
    }

    /// Whether the message whose text begins at `at` answers our request. A child that answered an
    /// earlier queue with this id may still send. It does not know our cookie, so messages before
    /// the cookie are dropped; later strays break the frames or the checksum. Removes the cookie.
    fn is_ours(&mut self, part: Result<FrameType, Malformed>, at: usize) -> bool {
        let text = &self.buffer.text()[at..];
        let Some(cookie) = self.queue.cookie.filter(|_| self.queue.is_framed()) else {
            return true;
        };
        if part == Ok(FrameType::Failure) {
            return Failure::decode(text).cookie == Some(cookie);
        }
        if self.cookie_left == 0 {
            return true;
        }
        let expected = &cookie.as_bytes()[size_of::<Cookie>() - self.cookie_left..];
        let count = expected.len().min(text.len());
        let is_ours = part == Ok(FrameType::Data) && text[..count] == expected[..count];
        if is_ours {
            self.cookie_left -= count;
            self.taken += count;
        }
        is_ours
    }

    /// Interprets the message whose text begins at `at`. Only DATA stays in the buffer.
    fn take(&mut self, at: usize) {
        let number = self.buffer.mtype().get();
        let part = FrameType::of(number);
        if !self.is_ours(part, at) {
            return self.buffer.truncate(at);
        }
        if part == Ok(FrameType::Data) {
            // Bytes of a file may look like one: then the next message is received a little later.
            let header = FrameHeader::decode(&self.buffer.text()[at..]);
            self.saw_window = header.is_ok_and(|header| header.frame_type == FrameType::Window);
            return;
        }
        self.text = self.buffer.text()[at..].to_vec();
        self.buffer.truncate(at);
        self.pending = Some(match part {
            Ok(FrameType::Failure) => match self.failure() {
                // A message, not a frame: the request or the child has failed.
                error if self.queue.is_framed() || error.is_retryable() => Err(error),
                _ => Ok(FrameType::Failure),
            },
            Ok(FrameType::End) => Ok(FrameType::End),
            _ => Err(Malformed::Type(number).into()),
        });
    }
}
