//! Requests: a question, the queue for its answer, and the proof that it is the sender's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sysv_ipc::{MessageType, QueueId};

use super::bytes::{Malformed, Reader, extension_after, pad_to_extension};
use super::lease::Cookie;
use super::question::{MAX_PATH, Operation, Question, Range};

/// The type of a normal request. The type is the priority: the server receives the lowest first.
pub const NORMAL_PRIORITY: MessageType = MessageType::new(1).unwrap();

/// The most bytes of `mtext` in a valid request.
pub const MAX_REQUEST: usize = 8192;

/// The most bytes of `mtext` in a request that every plain server accepts: an id, and a path of 256
/// bytes. TLPI's server accepts 4,100, and exits when a request is larger (`E2BIG`).
pub const MAX_PLAIN_REQUEST: usize = 260;

/// A request. Any program can send one, so nothing in it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    pub reply_queue: QueueId,
    /// A plain request fetches the whole file.
    pub question: Question<'a>,
    /// None in a plain request.
    pub extension: Option<Extension>,
}

/// What a plain request does not have, apart from its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The server may not tell a client about an unknown version before it has checked this.
    pub cookie: Cookie,
    /// Whether more questions will follow in the reply queue.
    pub session: bool,
    /// Whether the client can receive bytes in shared memory.
    pub windows: bool,
    /// Whether the client wants EXTENTS in place of the zeros in holes.
    pub extents: bool,
    /// The version, if this build does not know it or its flags. Then the server must refuse.
    pub unknown_version: Option<u16>,
}

impl Extension {
    const MAGIC: &'static [u8; 8] = b"mqfs-req";
    const VERSION: u16 = 1;
    const SESSION: u16 = 1;
    const WINDOWS: u16 = 2;
    const EXTENTS: u32 = 1;
    const SIZE: usize = 56;

    /// Decodes what follows the magic. Version and cookie keep their places in future versions.
    fn decode<'a>(bytes: &[u8], path: &'a Path) -> Result<(Question<'a>, Self), Malformed> {
        let mut reader = Reader::new(bytes);
        let (version, flags) = (reader.u16()?, reader.u16()?);
        let extents = reader.u32()? & Self::EXTENTS != 0;
        let cookie = Cookie::new(reader.array()?);
        let question = Question::decode_header(reader.bytes(Question::HEADER)?, path)?;
        let known = Self::SESSION | Self::WINDOWS;
        let is_known = version == Self::VERSION && flags & !known == 0;
        let unknown_version = (!is_known).then_some(version);
        let [session, windows] = [Self::SESSION, Self::WINDOWS].map(|flag| flags & flag != 0);
        Ok((question, Self { cookie, session, windows, extents, unknown_version }))
    }

    fn encode(&self, question: &Question<'_>, out: &mut Vec<u8>) {
        let version = self.unknown_version.unwrap_or(Self::VERSION);
        out.extend_from_slice(Self::MAGIC);
        out.extend_from_slice(&version.to_ne_bytes());
        let session = if self.session { Self::SESSION } else { 0 };
        let windows = if self.windows { Self::WINDOWS } else { 0 };
        out.extend_from_slice(&(session | windows).to_ne_bytes());
        let extents = if self.extents { Self::EXTENTS } else { 0 };
        out.extend_from_slice(&extents.to_ne_bytes());
        out.extend_from_slice(self.cookie.as_bytes());
        question.append_header(0, out); // the path stands before
    }
}

impl<'a> Request<'a> {
    /// Decodes `mtext`. Behind the path is an extension if it begins with the magic, else padding.
    pub fn decode(text: &'a [u8]) -> Result<Self, Malformed> {
        if text.len() > MAX_REQUEST {
            return Err(Malformed::TooLong);
        }
        let (id, rest) = text.split_first_chunk().ok_or(Malformed::TooShort)?;
        let id = i32::from_ne_bytes(*id);
        if id < 0 {
            return Err(Malformed::QueueId);
        }
        let nul = rest.iter().take(MAX_PATH + 1).position(|&byte| byte == 0);
        let length = nul.ok_or(Malformed::UnterminatedPath)?;
        let path = Path::new(OsStr::from_bytes(&rest[..length]));
        let extended = extension_after(text, size_of::<i32>() + length)
            .and_then(|bytes| bytes.strip_prefix(Extension::MAGIC));
        let (question, extension) = match extended {
            Some(bytes) => Extension::decode(bytes, path).map(|(asked, own)| (asked, Some(own)))?,
            None => (Question::new(path, Operation::Fetch(Range::WHOLE)), None),
        };
        Ok(Self { reply_queue: QueueId::new(id), question, extension })
    }

    /// Encodes `mtext`, as short as possible. Panics if the path has a NUL or exceeds [`MAX_PATH`].
    pub fn encode(&self) -> Vec<u8> {
        let path = self.question.path.as_os_str().as_bytes();
        assert!(path.len() <= MAX_PATH && !path.contains(&0), "not a path");
        let mut out = Vec::with_capacity(size_of::<i32>() + path.len() + 8 + Extension::SIZE);
        out.extend_from_slice(&self.reply_queue.get().to_ne_bytes());
        out.extend_from_slice(path);
        match &self.extension {
            None => out.push(0),
            Some(extension) => {
                pad_to_extension(&mut out);
                extension.encode(&self.question, &mut out);
            }
        }
        out
    }
}
