//! Messages: a type and some bytes, in one block of memory as the system calls want it.

use std::fmt;
use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use crate::memory;

/// The type of a message, `mtype`: a number greater than zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(libc::c_long);

impl MessageType {
    /// The greatest type. As [`Select::UpTo`](super::Select::UpTo) it means: lowest type first.
    pub const MAX: MessageType = MessageType(libc::c_long::MAX);

    /// A message type, unless the value is zero or negative.
    pub const fn new(value: libc::c_long) -> Option<Self> {
        if value > 0 { Some(Self(value)) } else { None }
    }

    /// The type as a number.
    pub const fn get(self) -> libc::c_long {
        self.0
    }
}

/// A message, or room for one: the kernel's `struct msgbuf`, a long `mtype` and then `mtext`.
///
/// Capacity and length are those of `mtext` alone, in bytes, as in msgop(2). A large capacity costs
/// address space, not memory, until it is used.
///
/// Texts of several messages can lie next to each other: while a system call lasts, the type takes
/// the place of the eight bytes before the text.
/// [`receive_appending`](crate::Queue::receive_appending) puts them back. When sending a
/// [`part`](Self::part), they are lost, so send the parts in their order.
pub struct MessageBuffer {
    /// `mtype`, then `mtext`, rounded up to whole longs. Longs, so that the block is aligned. Short
    /// messages, of up to 152 bytes, lie in place.
    block: SmallVec<[libc::c_long; 20]>,
    capacity: usize,
    len: usize,
}

/// A message in memory, to be sent: a [`MessageBuffer`], or a [part](MessageBuffer::part) of one.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `mtype`, then at least `len` bytes.
    pub(crate) block: &'a [libc::c_long],
    /// The length of `mtext`, in bytes.
    pub(crate) len: usize,
}

impl<'a> From<&'a MessageBuffer> for Message<'a> {
    fn from(message: &'a MessageBuffer) -> Self {
        Self { block: &message.block, len: message.len }
    }
}

impl MessageBuffer {
    /// Texts in a buffer begin at a multiple of this, in bytes.
    pub const ALIGNMENT: usize = size_of::<libc::c_long>();

    /// An empty message of type 1 with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut block = smallvec![0; 1 + capacity.div_ceil(Self::ALIGNMENT)];
        block[0] = 1;
        Self { block, capacity, len: 0 }
    }

    /// A message of `text`, with no room for more.
    pub fn with_text(mtype: MessageType, text: &[u8]) -> Self {
        let mut message = Self::with_capacity(text.len());
        message.set(mtype, text);
        message
    }

    /// The bytes that `mtext` has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The message's type.
    pub fn mtype(&self) -> MessageType {
        // Positive from the start, and neither a method nor the kernel makes it otherwise.
        MessageType(self.block[0])
    }

    /// The message's bytes, or those of several messages.
    pub fn text(&self) -> &[u8] {
        &self.room()[..self.len]
    }

    /// Makes this a message of `text`. Panics if it is longer than the capacity.
    pub fn set(&mut self, mtype: MessageType, text: &[u8]) {
        self.block[0] = mtype.get();
        self.room_mut()[..text.len()].copy_from_slice(text);
        self.len = text.len();
    }

    /// Appends bytes to the text. Panics if there is no room for them.
    pub fn append(&mut self, bytes: &[u8]) {
        let at = self.len;
        self.room_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Lets `source` write into the room after the text and return how many bytes it appended.
    /// Panics if that is more than there is room for. If `source` fails, nothing is appended.
    pub fn append_with<E>(
        &mut self,
        source: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let at = self.len;
        let count = source(&mut self.room_mut()[at..])?;
        self.set_len(at + count);
        Ok(count)
    }

    /// A message of some bytes; its type overwrites the eight before them. Panics unless the part
    /// is within the text and begins at a multiple of [`ALIGNMENT`](Self::ALIGNMENT).
    pub fn part(&mut self, mtype: MessageType, part: Range<usize>) -> Message<'_> {
        assert!(part.start <= part.end && part.end <= self.len, "not within the text");
        assert!(part.start.is_multiple_of(Self::ALIGNMENT), "not aligned");
        let block = &mut self.block[part.start / Self::ALIGNMENT..];
        block[0] = mtype.get();
        Message { block, len: part.len() }
    }

    /// Whether a text of `len` bytes can be appended.
    pub fn has_room_for(&self, len: usize) -> bool {
        self.len.is_multiple_of(Self::ALIGNMENT) && self.capacity - self.len >= len
    }

    /// Removes the first `count` bytes, and moves the others there. Panics if the text is shorter.
    pub fn remove_front(&mut self, count: usize) {
        let len = self.len;
        self.room_mut().copy_within(count..len, 0);
        self.len -= count;
    }

    /// Keeps the first `len` bytes of the text.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "a message longer than its buffer");
        self.len = len;
    }

    /// Lets `call` write a type and a text after the first `at` bytes and return the text's length.
    /// If it fails, nothing has changed.
    pub(crate) fn receive_at<E>(
        &mut self,
        at: usize,
        call: impl FnOnce(&mut [libc::c_long], usize) -> Result<usize, E>,
    ) -> Result<(), E> {
        assert!(
            at <= self.len && at.is_multiple_of(Self::ALIGNMENT),
            "not at the end of a message"
        );
        let mtype = at / Self::ALIGNMENT;
        let kept = self.block[mtype];
        let outcome = call(&mut self.block[mtype..], self.capacity - at);
        if at > 0 {
            let received = std::mem::replace(&mut self.block[mtype], kept);
            self.block[0] = if outcome.is_ok() { received } else { self.block[0] };
        }
        self.set_len(at + outcome?);
        Ok(())
    }

    fn room(&self) -> &[u8] {
        &memory::bytes(&self.block[1..])[..self.capacity]
    }

    fn room_mut(&mut self) -> &mut [u8] {
        &mut memory::bytes_mut(&mut self.block[1..])[..self.capacity]
    }
}

impl fmt::Debug for MessageBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, len, capacity } = self;
        write!(f, "MessageBuffer {{ mtype: {}, len: {len} of {capacity} }}", block[0])
    }
}
