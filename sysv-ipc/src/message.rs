//! Messages: a type and some bytes, in the one block of memory that the system calls want.

use std::fmt;
use std::ops::Range;

use crate::memory;

/// The size of a `long`, in bytes.
const LONG: usize = size_of::<libc::c_long>();

/// The type of a message, `mtype`: a number greater than zero.
///
/// ```
/// use sysv_ipc::MessageType;
///
/// assert_eq!(MessageType::new(2).unwrap().get(), 2);
/// assert!(MessageType::new(0).is_none() && MessageType::new(-1).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageType({})", self.0)
    }
}

/// A block of memory laid out as the kernel's `struct msgbuf`: a long `mtype`, then `mtext`.
///
/// The capacity and the length are those of `mtext` alone, in bytes, as everywhere in msgop(2);
/// so no call can be made that lets the kernel write past the end. Memory that was never filled
/// is never touched: a large capacity costs address space, not pages.
///
/// ```
/// use sysv_ipc::{MessageBuffer, MessageType};
///
/// let mut message = MessageBuffer::with_capacity(8192);
/// let data = MessageType::new(2).unwrap();
/// let read = message.fill(data, |room| std::io::Read::read(&mut &b"from a file"[..], room))?;
/// assert_eq!((read, message.text()), (11, &b"from a file"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Many messages in one buffer
///
/// A call wants the type right before the text. So texts that belong together can still lie one behind
/// the other, to be read or written at once: a message's type takes the place of the eight bytes before
/// its text for as long as the call lasts ([`Queue::receive_behind`](super::Queue::receive_behind)), or
/// for good where those were sent before ([`part`](Self::part)).
pub struct MessageBuffer {
    /// `mtype`, then `mtext`, rounded up to whole longs. Longs, so that the block is aligned.
    block: Vec<libc::c_long>,
    capacity: usize,
    len: usize,
}

/// A message in memory, to be sent: a [`MessageBuffer`], or a [part](MessageBuffer::part) of one.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `mtype`, then at least `len` bytes.
    block: &'a [libc::c_long],
    len: usize,
}

impl Message<'_> {
    /// The length of `mtext`, in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const libc::c_void {
        self.block.as_ptr().cast()
    }
}

impl<'a> From<&'a MessageBuffer> for Message<'a> {
    fn from(message: &'a MessageBuffer) -> Self {
        Self { block: &message.block, len: message.len }
    }
}

impl MessageBuffer {
    /// What the place of a text in a buffer must be a multiple of, in bytes.
    pub const ALIGNMENT: usize = LONG;

    /// An empty message of type 1 with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut block = vec![0; 1 + capacity.div_ceil(LONG)];
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

    /// The message's bytes; or those of several messages.
    pub fn text(&self) -> &[u8] {
        &self.room()[..self.len]
    }

    /// Makes this a message of `text`.
    ///
    /// # Panics
    /// If `text` is longer than the capacity.
    pub fn set(&mut self, mtype: MessageType, text: &[u8]) {
        self.block[0] = mtype.get();
        self.room_mut()[..text.len()].copy_from_slice(text);
        self.len = text.len();
    }

    /// Lets `source` write into the whole room of `mtext` and say how many bytes are the message.
    ///
    /// # Errors
    /// Those of `source`; the message is then empty.
    ///
    /// # Panics
    /// If `source` claims more bytes than there is room for.
    pub fn fill<E>(
        &mut self,
        mtype: MessageType,
        source: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.block[0] = mtype.get();
        self.len = 0;
        let len = source(self.room_mut())?;
        self.set_len(len);
        Ok(len)
    }

    /// A message of some of the bytes, which gives up the eight before them for its type.
    ///
    /// # Panics
    /// If the part is not within the text, or does not begin at a multiple of
    /// [`ALIGNMENT`](Self::ALIGNMENT).
    pub fn part(&mut self, mtype: MessageType, part: Range<usize>) -> Message<'_> {
        assert!(part.start <= part.end && part.end <= self.len, "not within the text");
        assert!(part.start.is_multiple_of(LONG), "not aligned");
        let block = &mut self.block[part.start / LONG..];
        block[0] = mtype.get();
        Message { block, len: part.len() }
    }

    /// Whether there is room behind the text for another of `len` bytes.
    pub fn has_room_behind(&self, len: usize) -> bool {
        self.len.is_multiple_of(LONG) && self.capacity - self.len >= len
    }

    /// Forgets all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "a message longer than its buffer");
        self.len = len;
    }

    /// Lets a call write a message behind the first `at` bytes, that is its type and at most as many
    /// bytes as it is given, and say how many it wrote. If it fails, nothing has changed.
    pub(crate) fn receive_at<E>(
        &mut self,
        at: usize,
        call: impl FnOnce(&mut [libc::c_long], usize) -> Result<usize, E>,
    ) -> Result<(), E> {
        assert!(at <= self.len && at.is_multiple_of(LONG), "no place for a message");
        let mtype = at / LONG;
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
        write!(
            f,
            "MessageBuffer {{ mtype: {}, len: {} of {} }}",
            self.block[0], self.len, self.capacity
        )
    }
}
