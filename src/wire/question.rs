//! Questions about one path: the one in a request, and those that follow it in a session.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sysv_ipc::MessageType;

use super::bytes::{Malformed, Reader};

/// The type of a message of questions in a reply queue: "mqfq". It is greater than that of every
/// part of an answer, so that its sender does not receive it.
pub const QUESTION_TYPE: MessageType = MessageType::new(0x6d71_6671).unwrap();

/// The most bytes of questions that a client may have sent and not yet seen answered.
pub const MAX_UNANSWERED: usize = 4096;

/// The longest path, in bytes without its NUL: `PATH_MAX` - 1.
pub const MAX_PATH: usize = 4095;

/// What a client asks about one path. Nothing in it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// Any bytes but NUL, at most [`MAX_PATH`] of them, perhaps none.
    pub path: &'a Path,
    pub operation: Operation,
    /// Its place in the session, from 0 and modulo 65,536. The frames of its answer have it too.
    pub number: u16,
    /// Whether the path begins at the directory that was entered last, leads nowhere above it, and
    /// has no symbolic link in it that would be followed.
    pub below: bool,
}

/// What to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Send a part of a file.
    Fetch(Range),
    /// Send the metadata of a file, perhaps of one that a symbolic link at the end leads to.
    Stat { follow: bool },
    /// Send the entries of a directory.
    List,
    /// Send a file's metadata. If it is a directory, later questions may be about what is below.
    Enter,
    /// An operation or flags that this build does not know. The server must answer with a FAILURE.
    Unknown { operation: u16, flags: u16 },
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::Stat { .. } => "stat",
            Self::List => "list",
            Self::Enter => "enter",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// A part of a file, in bytes. Without a length, it extends to the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub length: Option<u64>,
}

impl Range {
    pub const WHOLE: Range = Range { offset: 0, length: None };
}

impl<'a> Question<'a> {
    const FETCH: u16 = 1;
    const STAT: u16 = 2;
    const LIST: u16 = 3;
    const ENTER: u16 = 4;

    const NO_FOLLOW: u16 = 1;
    const BELOW: u16 = 2;

    /// The size of what comes before the path, in bytes.
    pub const HEADER: usize = 24;

    /// A question about a path as the user named it.
    pub fn new(path: &'a Path, operation: Operation) -> Self {
        Self { path, operation, number: 0, below: false }
    }

    /// Decodes the first question in the `mtext` of a message of type [`QUESTION_TYPE`], and
    /// returns the bytes of the others too.
    pub fn decode(text: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let (header, rest) = text.split_at_checked(Self::HEADER).ok_or(Malformed::TooShort)?;
        let length = u16::from_ne_bytes([header[6], header[7]]).into();
        if length > MAX_PATH {
            return Err(Malformed::TooLong);
        }
        let (path, rest) = rest.split_at_checked(length).ok_or(Malformed::TooShort)?;
        if path.contains(&0) {
            return Err(Malformed::Field);
        }
        Ok((Self::decode_header(header, Path::new(OsStr::from_bytes(path)))?, rest))
    }

    /// Appends the question to an `mtext`. Panics if the path is longer than 65,535 bytes.
    pub fn append(&self, out: &mut Vec<u8>) {
        let path = self.path.as_os_str().as_bytes();
        self.append_header(u16::try_from(path.len()).expect("a path"), out);
        out.extend_from_slice(path);
    }

    pub fn encoded_len(&self) -> usize {
        Self::HEADER + self.path.as_os_str().len()
    }

    /// Decodes all but the path.
    pub(super) fn decode_header(header: &[u8], path: &'a Path) -> Result<Self, Malformed> {
        let mut reader = Reader::new(header);
        let (operation, flags) = (reader.u16()?, reader.u16()?);
        let number = reader.u16()?;
        reader.u16()?; // the length of the path
        let (offset, length) = (reader.u64()?, reader.u64()?);
        let range = Range { offset, length: (length != u64::MAX).then_some(length) };
        let operation = match (operation, flags & !Self::BELOW) {
            (Self::FETCH, 0) => Operation::Fetch(range),
            (Self::STAT, 0) => Operation::Stat { follow: true },
            (Self::STAT, Self::NO_FOLLOW) => Operation::Stat { follow: false },
            (Self::LIST, 0) => Operation::List,
            (Self::ENTER, 0) => Operation::Enter,
            _ => Operation::Unknown { operation, flags },
        };
        Ok(Self { path, operation, number, below: flags & Self::BELOW != 0 })
    }

    pub(super) fn append_header(&self, path_length: u16, out: &mut Vec<u8>) {
        let range = if let Operation::Fetch(range) = self.operation { range } else { Range::WHOLE };
        let (operation, flags) = match self.operation {
            Operation::Fetch(_) => (Self::FETCH, 0),
            Operation::Stat { follow: true } => (Self::STAT, 0),
            Operation::Stat { follow: false } => (Self::STAT, Self::NO_FOLLOW),
            Operation::List => (Self::LIST, 0),
            Operation::Enter => (Self::ENTER, 0),
            Operation::Unknown { operation, flags } => (operation, flags),
        };
        let flags = flags | if self.below { Self::BELOW } else { 0 };
        out.extend_from_slice(&operation.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&self.number.to_ne_bytes());
        out.extend_from_slice(&path_length.to_ne_bytes());
        out.extend_from_slice(&range.offset.to_ne_bytes());
        out.extend_from_slice(&range.length.unwrap_or(u64::MAX).to_ne_bytes());
    }
}
