//! Requests: a path, the queue for the reply, and what to do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sysv_ipc::{MessageType, QueueId};

use super::bytes::{Malformed, Reader, extension_after, pad_to_extension};
use super::lease::Cookie;
use super::start::Start;

/// The type of a normal request. The type is the priority: the server receives the lowest first.
pub const NORMAL_PRIORITY: MessageType = MessageType::new(1).unwrap();

/// The longest path, in bytes without its NUL: `PATH_MAX` - 1.
pub const MAX_PATH: usize = 4095;

/// The most bytes of `mtext` in a valid request.
pub const MAX_REQUEST: usize = 8192;

/// The most bytes of `mtext` in a request that every plain server accepts: an id, and a path of 256
/// bytes. TLPI's server accepts 4,100, and exits when a request is larger (`E2BIG`).
pub const MAX_PLAIN_REQUEST: usize = 260;

/// A request. Any program can send one, so nothing in it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    pub reply_queue: QueueId,
    /// Any bytes but NUL, at most [`MAX_PATH`] of them, perhaps none.
    pub path: &'a Path,
    /// None in a plain request.
    pub extension: Option<Extension<'a>>,
}

/// The part that a plain request does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    pub cookie: Cookie,
    pub operation: Operation<'a>,
}

/// What an extended request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation<'a> {
    Fetch(Range),
    /// Send the rest of a file, if the bytes that arrived before are still in it.
    Resume(Range, Arrived),
    /// Send the metadata of a file.
    Stat {
        /// Whether to follow a symbolic link at the end of the path.
        follow: bool,
    },
    /// Send the entries of a directory.
    List(Start<'a>),
    /// Send a directory with everything below it, or a file.
    Tree(Start<'a>),
    /// An operation that this build does not know. The server must answer it with a FAILURE.
    Unknown {
        version: u16,
        operation: u16,
        /// The operation's flags. A server must not ignore unknown ones.
        flags: u32,
    },
}

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    /// The length; None for everything up to the end of the file.
    pub length: Option<u64>,
}

impl Range {
    pub const WHOLE: Range = Range { offset: 0, length: None };

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (offset, length) = (reader.u64()?, reader.u64()?);
        Ok(Self { offset, length: (length != u64::MAX).then_some(length) })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_ne_bytes());
        out.extend_from_slice(&self.length.unwrap_or(u64::MAX).to_ne_bytes());
    }
}

/// The bytes of an interrupted transfer that no END verified. They end where the requested range
/// begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Where they begin in the file.
    pub start: u64,
    pub checksum: u32,
}

impl<'a> Extension<'a> {
    const MAGIC: &'static [u8; 8] = b"mqfs-req";
    const VERSION: u16 = 1;
    const FETCH: u16 = 1;
    const RESUME: u16 = 2;
    const STAT: u16 = 3;
    const LIST: u16 = 4;
    const TREE: u16 = 5;

    /// Decodes what follows the magic. Version, operation, flags and cookie keep their places in
    /// every future version: the server needs the cookie before it may tell a client that a version
    /// is unknown.
    fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (version, operation, flags) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let cookie = Cookie::new(reader.array()?);
        let operation = match (version, operation, flags) {
            (Self::VERSION, Self::FETCH, 0) => Operation::Fetch(Range::decode(&mut reader)?),
            (Self::VERSION, Self::RESUME, 0) => {
                let range = Range::decode(&mut reader)?;
                let arrived = Arrived { start: reader.u64()?, checksum: reader.u32()? };
                reader.u32()?; // reserved
                if arrived.start > range.offset {
                    return Err(Malformed::Field);
                }
                Operation::Resume(range, arrived)
            }
            (Self::VERSION, Self::STAT, 0) => {
                let (follow, _reserved) = (reader.u32()?, reader.u32()?);
                match follow {
                    0 | 1 => Operation::Stat { follow: follow == 1 },
                    _ => return Err(Malformed::Field),
                }
            }
            (Self::VERSION, Self::LIST, 0) => {
                let start = Start::decode(&mut reader)?;
                if start.arrived.is_some() || start.path.contains(&b'/') {
                    return Err(Malformed::Field);
                }
                Operation::List(start)
            }
            (Self::VERSION, Self::TREE, 0) => Operation::Tree(Start::decode(&mut reader)?),
            _ => Operation::Unknown { version, operation, flags },
        };
        Ok(Self { cookie, operation })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (version, operation, flags) = match self.operation {
            Operation::Fetch(_) => (Self::VERSION, Self::FETCH, 0),
            Operation::Resume(..) => (Self::VERSION, Self::RESUME, 0),
            Operation::Stat { .. } => (Self::VERSION, Self::STAT, 0),
            Operation::List(_) => (Self::VERSION, Self::LIST, 0),
            Operation::Tree(_) => (Self::VERSION, Self::TREE, 0),
            Operation::Unknown { version, operation, flags } => (version, operation, flags),
        };
        out.extend_from_slice(Self::MAGIC);
        out.extend_from_slice(&version.to_ne_bytes());
        out.extend_from_slice(&operation.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(self.cookie.as_bytes());
        match self.operation {
            Operation::Fetch(range) => range.encode(out),
            Operation::Resume(range, arrived) => {
                range.encode(out);
                out.extend_from_slice(&arrived.start.to_ne_bytes());
                out.extend_from_slice(&arrived.checksum.to_ne_bytes());
                out.extend_from_slice(&[0; 4]); // reserved
            }
            Operation::Stat { follow } => {
                out.extend_from_slice(&u32::from(follow).to_ne_bytes());
                out.extend_from_slice(&[0; 4]); // reserved
            }
            Operation::List(start) | Operation::Tree(start) => start.encode(out),
            Operation::Unknown { .. } => {}
        }
    }
}

impl<'a> Request<'a> {
    /// Decodes `mtext`. What follows the path's NUL is an extension if it begins with the magic,
    /// and padding otherwise.
    pub fn decode(text: &'a [u8]) -> Result<Self, Malformed> {
        if text.len() > MAX_REQUEST {
            return Err(Malformed::TooLong);
        }
        let (id, rest) = text.split_first_chunk().ok_or(Malformed::TooShort)?;
        let id = i32::from_ne_bytes(*id);
        if id < 0 {
            return Err(Malformed::QueueId);
        }
        let length = rest
            .iter()
            .take(MAX_PATH + 1)
            .position(|&byte| byte == 0)
            .ok_or(Malformed::UnterminatedPath)?;
        let extension = extension_after(text, size_of::<i32>() + length)
            .and_then(|bytes| bytes.strip_prefix(Extension::MAGIC))
            .map(Extension::decode)
            .transpose()?;
        let path = Path::new(OsStr::from_bytes(&rest[..length]));
        Ok(Self { reply_queue: QueueId::new(id), path, extension })
    }

    /// Encodes the request as `mtext`, as short as possible.
    ///
    /// # Panics
    /// The path contains a NUL or is longer than [`MAX_PATH`], or a [`Start`] is too long.
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        assert!(path.len() <= MAX_PATH && !path.contains(&0), "not a path");
        let mut out = Vec::with_capacity(size_of::<i32>() + path.len() + 64);
        out.extend_from_slice(&self.reply_queue.get().to_ne_bytes());
        out.extend_from_slice(path);
        match &self.extension {
            None => out.push(0),
            Some(extension) => {
                pad_to_extension(&mut out);
                extension.encode(&mut out);
            }
        }
        out
    }
}
