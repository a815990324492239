//! A window: shared memory through which the bytes of a large file go.
//!
//! The queue's capacity is the flow control. Every message about the window is so long that only a
//! certain number of them fit into the queue at once, *n*, whatever else is in it. So once such a
//! message is sent, the client has received the one *n* before it, and had read the bytes of the
//! one before that. With *n* + 2 slots, the slot that is filled next is never one that the client
//! may still read. A client that makes its queue larger spoils its own copy, and nothing else.

use std::ops::Range;

use sysv_ipc::{
    Attached, Error, Key, Settings, SharedMemory, SharedMemoryId, SharedMemoryStatus,
    SharedMemoryUsage, Uid, shared_memory_segments,
};

use crate::sys::geteuid;
use crate::wire::{FrameHeader, MAX_WINDOW, WINDOW_MODE, WindowPart};

pub(super) struct Window {
    pub(super) memory: Attached,
    segment: SharedMemoryId,
    /// In bytes, as requested. The slots, of whole pages, may take less together.
    pub(super) size: usize,
    slot_size: usize,
    slots: usize,
    next: usize,
    /// In bytes of `mtext`.
    message_length: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowPolicy {
    /// In bytes. 0: none is made.
    pub(crate) size: usize,
    pub(crate) client: Uid,
    /// The most windows at once: a client may keep the memory of one for as long as it likes.
    pub(crate) count: usize,
}

impl WindowPolicy {
    /// The size of a window for this many bytes: at most a quarter, since memory that is used for
    /// the first time costs more than bytes in a queue.
    pub(super) fn size_for(&self, bytes: u64) -> usize {
        let power_of_two = 1 << (bytes.max(4) / 4).ilog2().min(MAX_WINDOW.ilog2());
        self.size.min(power_of_two)
    }
}

impl Window {
    pub(super) const LARGEST_QUEUE: usize = 16 << 10;

    /// At least so many messages should wait while the client reads.
    const LEAST_WAITING: usize = 2;

    /// With smaller slots, plain DATA would be as fast.
    const SMALLEST_SLOT: usize = 32 << 10;

    const PAGE: usize = 4096;

    /// The queue holds `capacity` bytes, and a message at most `longest`. None: they do not allow
    /// for a window, or there are too many. Fails if memory or segments are used up: shmget(2).
    pub(super) fn make(
        policy: &WindowPolicy,
        size: usize,
        capacity: usize,
        longest: usize,
    ) -> Result<Option<Self>, Error> {
        let waiting = Self::LEAST_WAITING.max(capacity / longest);
        let message_length = capacity / (waiting + 1) + 1;
        let slots = waiting + 2;
        let slot_size = size / slots / Self::PAGE * Self::PAGE;
        if slot_size < Self::SMALLEST_SLOT
            || message_length < FrameHeader::SIZE + WindowPart::SIZE
            || count(policy.size, policy.count)? >= policy.count
        {
            return Ok(None);
        }
        let memory = SharedMemory::create(Key::PRIVATE, slot_size * slots, WINDOW_MODE)?;
        let attached = memory.attach();
        let handed_over = if attached.is_ok() { hand_over(memory, policy.client) } else { Ok(()) };
        memory.remove()?;
        handed_over?;
        let (memory, segment) = (attached?, memory.id());
        Ok(Some(Self { memory, segment, size, slot_size, slots, next: 0, message_length }))
    }

    /// What to fill next, if this many bytes are left: a part of them so small that the client
    /// must have received a message, and attached the segment, before all is sent. So this process
    /// may give the window back as soon as that is done.
    pub(super) fn free_slot(&self, left: u64) -> Range<usize> {
        let start = self.next * self.slot_size;
        let part = usize::try_from(left / 8).unwrap_or(usize::MAX);
        start..start + part.max(Self::SMALLEST_SLOT).min(self.slot_size)
    }

    /// The text of the WINDOW that names the first bytes of this slot.
    pub(super) fn announce(&mut self, length: usize) -> Vec<u8> {
        let offset = (self.next * self.slot_size) as u32;
        self.next = (self.next + 1) % self.slots;
        let part = WindowPart { segment: self.segment, offset, length: length as u32 };
        let mut text = part.encode().to_vec();
        text.resize(self.message_length - FrameHeader::SIZE, 0);
        text
    }
}

/// How many removed segments of at most this size this user has made, other programs' too: the
/// owner of a segment can change neither. 0: there are fewer than `most` segments.
fn count(size: usize, most: usize) -> Result<usize, Error> {
    if SharedMemoryUsage::current()?.segments < most {
        return Ok(0);
    }
    let may_be_window = |status: &SharedMemoryStatus| {
        status.is_removed && status.size <= size && status.permissions.cuid == geteuid()
    };
    Ok(shared_memory_segments()?.filter(|(_, status)| may_be_window(status)).count())
}

/// Makes the client the owner, so that it may attach the segment. This process keeps its rights.
fn hand_over(memory: SharedMemory, client: Uid) -> Result<(), Error> {
    if client == geteuid() {
        return Ok(());
    }
    let settings = memory.status()?.permissions.settings();
    memory.set(&Settings { uid: client, ..settings })
}
