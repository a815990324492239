//! Frames: the DATA of an mqfs server are together one stream of these.

use libc::c_long;
use sysv_ipc::{MessageType, SharedMemoryId};

use super::bytes::{Malformed, Reader};
use super::reply::MAX_REPLY;

/// What a frame holds: its type. From a plain server, the type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// A [`Failure`](super::Failure).
    Failure = 1,
    /// Bytes of the file, or of the list.
    Data = 2,
    /// A [`Trailer`](super::Trailer). That of a plain server has no text.
    End = 3,
    /// An [`Entry`](super::Entry), before the bytes. This and the following are only frames.
    Meta = 4,
    /// The child will answer no more questions: see [`encode_farewell`].
    Farewell = 5,
    /// A [`WindowPart`], in a message of its own.
    Window = 6,
    /// [`Extent`](super::Extent)s, before the data behind the holes.
    Extents = 7,
}

impl FrameType {
    pub const fn mtype(self) -> MessageType {
        MessageType::new(self as c_long).unwrap()
    }

    pub fn of(number: c_long) -> Result<Self, Malformed> {
        use FrameType::{Data, End, Extents, Failure, Farewell, Meta, Window};
        let all = [Failure, Data, End, Meta, Farewell, Window, Extents];
        all.into_iter().find(|&found| found as c_long == number).ok_or(Malformed::Type(number))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    pub frame_type: FrameType,
    pub length: u32,
    /// The number of the question; 0 in a FAREWELL.
    pub question: u16,
}

impl FrameHeader {
    pub const SIZE: usize = 8;

    /// The most bytes of text in a frame that is neither DATA nor WINDOW nor EXTENTS.
    pub const LONGEST: usize = 16_384;

    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&(self.frame_type as u16).to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.question.to_ne_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (length, number, question) = (reader.u32()?, reader.u16()?, reader.u16()?);
        let frame_type = FrameType::of(number.into())?;
        let most = match frame_type {
            FrameType::Data => usize::MAX,
            FrameType::Window => MAX_REPLY,
            FrameType::Extents => Extent::MOST * Extent::SIZE,
            _ => Self::LONGEST,
        };
        if length as usize > most {
            return Err(Malformed::TooLong);
        }
        Ok(Self { frame_type, length, question })
    }
}

/// The text of a FAREWELL: how many questions of the session were answered.
pub fn encode_farewell(answered: u64) -> [u8; 8] {
    answered.to_ne_bytes()
}

pub fn decode_farewell(text: &[u8]) -> Result<u64, Malformed> {
    Reader::new(text).u64()
}

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

/// A hole of a file, and the data that follows it up to the next one. Lengths are in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub hole: u64,
    pub data: u64,
}

impl Extent {
    pub const MOST: usize = 65_536;

    const SIZE: usize = 16;

    pub fn encode_all(extents: &[Self]) -> Vec<u8> {
        extents.iter().flat_map(|it| [it.hole, it.data]).flat_map(u64::to_ne_bytes).collect()
    }

    /// Decodes an EXTENTS that follows this many bytes of a file. No file exceeds `i64::MAX`.
    pub fn decode_all(text: &[u8], before: u64) -> Result<Vec<Self>, Malformed> {
        let mut end = before;
        let decode = |bytes| {
            let mut reader = Reader::new(bytes);
            let extent = Self { hole: reader.u64()?, data: reader.u64()? };
            let all = end.checked_add(extent.hole).and_then(|all| all.checked_add(extent.data));
            let is_valid = |&all: &u64| all > end && i64::try_from(all).is_ok();
            end = all.filter(is_valid).ok_or(Malformed::Field)?;
            Ok(extent)
        };
        text.chunks(Self::SIZE).map(decode).collect()
    }
}
