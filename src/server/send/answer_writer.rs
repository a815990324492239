//! Writes answers as the client wants them: as frames or, for a plain client, as messages.

use std::time::Duration;

use smallvec::SmallVec;
use sysv_ipc::{MessageBuffer, MessageType};

use super::failure::{SendFailure, Unanswerable};
use super::outbox::{Outbox, Undelivered};
use super::source::{Source, at_most};
use super::window::{Window, WindowPolicy};
use crate::sys::Moment;
use crate::wire::{
    Cookie, Entry, Extent, Failure, FrameHeader, FrameType, Tally, Trailer, encode_farewell,
};

const DATA: MessageType = FrameType::Data.mtype();

/// The parts of answers are frames, one after the other in a stream, and the messages are pieces of
/// the stream. A plain client gets each part as a message of its type.
pub(crate) struct AnswerWriter<'a> {
    pub(crate) outbox: Outbox<'a>,
    /// None once the stream has it.
    opening: Option<Cookie>,
    question: u16,
    /// The stream; for a plain client, bytes of the file.
    buffer: MessageBuffer,
    /// How many bytes of the stream in the buffer were sent.
    flushed: usize,
    /// When the stream was last seen with nothing to send. None: not yet.
    empty_at: Option<Moment>,
    /// None: the client cannot use one, or none can be made.
    window_policy: Option<WindowPolicy>,
    window: Option<Window>,
    pub(super) wants_extents: bool,
}

impl<'a> AnswerWriter<'a> {
    /// With more bytes at once, the first would leave the CPU's cache before they are sent.
    const MAX_BATCH: usize = 128 << 10;

    /// The most bytes that a frame adds, other than DATA and EXTENTS, with the cookie before it.
    const LONGEST: usize = size_of::<Cookie>() + FrameHeader::SIZE + FrameHeader::LONGEST;

    /// The least room in the stream to read a part of a file into.
    const WORTHWHILE: usize = 4096;

    /// A window is made for this many bytes. With fewer, making it costs more than it saves.
    const LEAST_FOR_WINDOW: u64 = 512 << 10;

    /// How long an answer may wait for more that leaves in the same message.
    const LONGEST_WAIT: Duration = Duration::from_millis(1);

    /// A buffer for a child. If the parent makes it, it costs the child no call of malloc. It is so
    /// large that malloc maps it: until it is written to, it has no pages for a fork to copy.
    pub(crate) fn buffer() -> MessageBuffer {
        MessageBuffer::with_capacity(Self::MAX_BATCH + 2 * Self::LONGEST)
    }

    pub(crate) fn new(
        outbox: Outbox<'a>,
        window_policy: Option<WindowPolicy>,
        wants_extents: bool,
        mut buffer: MessageBuffer,
    ) -> Self {
        let least = outbox.chunk + Self::LONGEST;
        if buffer.capacity() < least {
            buffer = MessageBuffer::with_capacity(least);
        }
        Self {
            opening: outbox.reply.cookie,
            empty_at: None,
            outbox,
            question: 0,
            buffer,
            flushed: 0,
            window_policy,
            window: None,
            wants_extents,
        }
    }

    pub(crate) fn begin(&mut self, question: u16, received: Moment) -> Result<(), Undelivered> {
        self.question = question;
        self.flush_if_old(received)
    }

    pub(super) fn meta(&mut self, entry: &Entry<'_>) -> Result<(), Undelivered> {
        if self.is_plain() {
            return Ok(());
        }
        let mut text = SmallVec::<[u8; 256]>::new();
        entry.encode(|bytes| text.extend_from_slice(bytes));
        self.frame(FrameType::Meta, &text)
    }

    /// Says where the next holes are.
    pub(super) fn extents(&mut self, extents: &[Extent]) -> Result<(), Undelivered> {
        let text = Extent::encode_all(extents);
        if text.len() > FrameHeader::LONGEST {
            self.flush()?;
            let most = self.outbox.chunk + Self::LONGEST + text.len();
            self.buffer = MessageBuffer::with_capacity(most);
        }
        self.frame(FrameType::Extents, &text)
    }

    /// Sends an END. Plain clients get no trailer.
    pub(super) fn end(&mut self, trailer: &Trailer) -> Result<(), Undelivered> {
        let text = trailer.encode();
        self.part(FrameType::End, if self.is_plain() { &[] } else { &text })
    }

    pub(crate) fn failure(&mut self, why: &Unanswerable) -> Result<(), Undelivered> {
        let errno = Some(why.errno).filter(|_| !self.is_plain());
        let failure = Failure { text: why.text.as_bytes().to_vec(), errno, cookie: None };
        self.part(FrameType::Failure, &failure.encode())
    }

    /// Counts a question. Returns why its answer did not reach the client; the caller counts that.
    pub(crate) fn count_answer(
        &self,
        outcome: &Result<Trailer, SendFailure>,
        received: Moment,
    ) -> Option<Undelivered> {
        let counters = self.outbox.counters;
        counters.question();
        match outcome {
            Ok(_) => counters.completed(self.outbox.now().since(received)),
            Err(SendFailure::Unanswerable(why)) => counters.failed(why.reason()),
            Err(SendFailure::Undelivered(why)) => return Some(*why),
        }
        None
    }

    /// Ends a session, of which this many questions were answered.
    pub(crate) fn farewell(&mut self, answered: u64) -> Result<(), Undelivered> {
        self.question = 0;
        self.frame(FrameType::Farewell, &encode_farewell(answered))?;
        self.flush()
    }

    fn is_plain(&self) -> bool {
        self.outbox.reply.cookie.is_none()
    }

    fn part(&mut self, frame_type: FrameType, text: &[u8]) -> Result<(), Undelivered> {
        match self.is_plain() {
            false => self.frame(frame_type, text),
            true => self.outbox.send(&MessageBuffer::with_text(frame_type.mtype(), text)),
        }
    }

    fn frame(&mut self, frame_type: FrameType, text: &[u8]) -> Result<(), Undelivered> {
        self.make_room(size_of::<Cookie>() + FrameHeader::SIZE + text.len());
        if let Some(cookie) = self.opening.take() {
            self.buffer.append(cookie.as_bytes());
        }
        let length = text.len() as u32;
        let question = self.question;
        self.buffer.append(&FrameHeader { frame_type, length, question }.encode());
        self.buffer.append(text);
        self.send_full()
    }

    /// Sends some bytes of a source, and returns how many. 0: there are no more.
    pub(super) fn data(
        &mut self,
        source: &mut dyn Source,
        tally: &mut Tally,
    ) -> Result<usize, SendFailure> {
        if let Some(left) = source.left_for_window()
            && let Some(count) = self.data_in_window(source, left, tally)?
        {
            return Ok(count);
        }
        if source.left() != Some(0) {
            self.flush_if_old(self.outbox.now())?;
        }
        let batch = batch(self.outbox.chunk);
        let most = at_most(source.left(), self.most_at_once(source));
        if most > self.buffer.capacity() {
            self.flush()?;
            self.buffer = MessageBuffer::with_capacity(batch);
        }
        self.make_room(Self::WORTHWHILE);
        let header = if self.is_plain() { 0 } else { FrameHeader::SIZE };
        let (mut count, question) = (0, self.question);
        self.buffer.append_with(|room| {
            let (header, text) = room.split_at_mut(header);
            let most = text.len().min(most);
            count = source.fill(&mut text[..most])?;
            tally.add(&text[..count]); // while the bytes are in the cache
            let (frame_type, length) = (FrameType::Data, count as u32);
            let frame = FrameHeader { frame_type, length, question }.encode();
            header.copy_from_slice(&frame[..header.len()]);
            Ok::<_, Unanswerable>(if count > 0 { header.len() + count } else { 0 })
        })?;
        self.outbox.count_bytes(count);
        if self.is_plain() {
            self.flush()?
        } else {
            self.send_full()?
        }
        Ok(count)
    }

    /// Makes a window for a file of which this many bytes are to come, unless there is one.
    fn make_window(&mut self, bytes: u64) -> Result<(), Undelivered> {
        let Some(policy) = self.window_policy.filter(|_| bytes >= Self::LEAST_FOR_WINDOW) else {
            return Ok(());
        };
        let size = policy.size_for(bytes);
        if self.window.as_ref().is_some_and(|window| window.size >= size) {
            return Ok(());
        }
        self.flush()?; // looks whether the queue is still the client's
        let capacity = self.outbox.reply.max_bytes.min(Window::LARGEST_QUEUE);
        match Window::make(&policy, size, capacity, self.outbox.chunk) {
            Ok(Some(window)) if self.outbox.lower_capacity(capacity) => self.window = Some(window),
            Ok(_) => self.window_policy = None,
            Err(error) => {
                self.outbox.note_no_window(&error);
                self.window_policy = None;
            }
        }
        Ok(())
    }

    /// As [`data`](Self::data), in shared memory. None: there is no window.
    #[inline(never)] // with its buffers, every answer would touch further pages of the stack
    fn data_in_window(
        &mut self,
        source: &mut dyn Source,
        left: u64,
        tally: &mut Tally,
    ) -> Result<Option<usize>, SendFailure> {
        self.make_window(left)?;
        if self.window.is_some() {
            self.flush()?;
        }
        let Some(window) = &mut self.window else { return Ok(None) };
        let slot = window.free_slot(left);
        let start = slot.start;
        let count = source.fill_shared(&window.memory, slot)?;
        if count > 0 {
            window.memory.for_each_copy(start..start + count, |bytes| tally.add(bytes));
            let text = window.announce(count);
            self.outbox.count_bytes(count);
            self.part(FrameType::Window, &text)?;
            self.flush()?;
        }
        Ok(Some(count))
    }

    pub(crate) fn drop_window(&mut self) {
        self.window = None;
    }

    /// From a fast source it takes several DATA at once: one by one takes a seventh longer in all.
    /// From others it takes no more than the queue holds, because the client waits.
    fn most_at_once(&self, source: &dyn Source) -> usize {
        let (chunk, batch) = (self.outbox.chunk, batch(self.outbox.chunk));
        let queue = self.outbox.reply.max_bytes;
        let is_fast = source.left().is_some();
        if is_fast { batch } else { batch.min(queue.max(chunk) / chunk * chunk) }
    }

    /// Makes room for this many bytes of the stream. Never fails: the buffer has room for them and
    /// for the unsent rest, which is less than a message.
    fn make_room(&mut self, bytes: usize) {
        if self.buffer.capacity() - self.buffer.text().len() < bytes {
            self.buffer.remove_front(std::mem::take(&mut self.flushed));
        }
    }

    /// Sends whole messages. The rest waits for more.
    fn send_full(&mut self) -> Result<(), Undelivered> {
        let length = self.buffer.text().len();
        while length - self.flushed >= self.outbox.chunk {
            let part = self.flushed..self.flushed + self.outbox.chunk;
            self.flushed = part.end;
            self.outbox.send(self.buffer.part(DATA, part))?;
        }
        if self.flushed == length {
            self.flushed = 0;
            self.buffer.truncate(0);
        }
        Ok(())
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.text().is_empty()
    }

    fn flush_if_old(&mut self, now: Moment) -> Result<(), Undelivered> {
        let begun = (self.outbox.last_sent, Outbox::PAUSE);
        let (since, longest) = self.empty_at.map_or(begun, |at| (at, Self::LONGEST_WAIT));
        if now.since(since) > longest {
            self.flush()?;
        }
        if self.is_flushed() {
            self.empty_at = Some(now);
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Undelivered> {
        self.send_full()?;
        let part = self.flushed..self.buffer.text().len();
        if !part.is_empty() {
            self.outbox.send(self.buffer.part(DATA, part))?;
        }
        self.flushed = 0;
        self.buffer.truncate(0);
        Ok(())
    }
}

/// How many bytes to take from a file at once, in whole DATA.
fn batch(chunk: usize) -> usize {
    chunk * (AnswerWriter::MAX_BATCH / chunk).max(1)
}
