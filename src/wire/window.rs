//! Where bytes of a file lie in shared memory.

use sysv_ipc::{Mode, SharedMemoryId};

use super::bytes::{Malformed, Reader};
use super::queue_mode::MARK;

/// The mode of a segment. The mark tells it from those of other programs.
pub const WINDOW_MODE: Mode = Mode::new(0o600).with(MARK);

pub const MAX_WINDOW: usize = 64 << 20;

/// The text of a WINDOW: some bytes of a file, which stand in a segment until the client receives
/// the next message. Bytes that follow fill the message up, and mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowPart {
    pub segment: SharedMemoryId,
    pub offset: u32,
    /// More than 0.
    pub length: u32,
}

impl WindowPart {
    /// The size in bytes without what follows.
    pub const SIZE: usize = 16;

    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.segment.get().to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_ne_bytes());
        bytes
    }

    pub fn decode(text: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(text);
        let segment = SharedMemoryId::new(reader.i32()?);
        let (offset, length) = (reader.u32()?, reader.u32()?);
        reader.u32()?; // reserved
        if length == 0 || segment.get() < 0 {
            return Err(Malformed::Field);
        }
        Ok(Self { segment, offset, length })
    }
}
