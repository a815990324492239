//! Messages: a type and some bytes, in the one block of memory that the system calls want.

use std::fmt;

/// The type of a message, `mtype`: a number greater than zero.
///
/// ```
/// use mqfs::sysv::MessageType;
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
/// use mqfs::sysv::{MessageBuffer, MessageType};
///
/// let mut message = MessageBuffer::with_capacity(8192);
/// let data = MessageType::new(2).unwrap();
/// let read = message.fill(data, |room| std::io::Read::read(&mut &b"from a file"[..], room))?;
/// assert_eq!((read, message.text()), (11, &b"from a file"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct MessageBuffer {
    /// `mtype`, then `mtext`, rounded up to whole longs. Longs, so that the block is aligned.
    block: Vec<libc::c_long>,
    capacity: usize,
    len: usize,
}

impl MessageBuffer {
    /// An empty message of type 1 with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let longs = 1 + capacity.div_ceil(size_of::<libc::c_long>());
        let mut block = vec![0; longs];
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
        // Positive from the start, and neither `set`, `fill` nor the kernel makes it otherwise.
        MessageType(self.block[0])
    }

    /// The message's bytes.
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

    pub(super) fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "a message longer than its buffer");
        self.len = len;
    }

    pub(super) fn as_ptr(&self) -> *const libc::c_void {
        self.block.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.block.as_mut_ptr().cast()
    }

    fn room(&self) -> &[u8] {
        let text = self.block[1..].as_ptr().cast::<u8>();
        // SAFETY: the block behind its first long holds at least `capacity` initialised bytes, and
        // any byte is a valid u8.
        unsafe { std::slice::from_raw_parts(text, self.capacity) }
    }

    fn room_mut(&mut self) -> &mut [u8] {
        let text = self.block[1..].as_mut_ptr().cast::<u8>();
        // SAFETY: as in `room`, and any bytes make valid longs; the borrow of self is unique.
        unsafe { std::slice::from_raw_parts_mut(text, self.capacity) }
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
