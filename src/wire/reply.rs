//! How an answer ends: END or FAILURE.

use nix::errno::Errno;

use super::bytes::{Malformed, Reader, extension_after, pad_to_extension};
use super::lease::Cookie;

/// The most bytes of `mtext` in a message to a plain client, whose buffer may be no larger.
pub const MAX_PLAIN_REPLY: usize = 4096;

/// The most bytes of `mtext` in a message to an extended client.
pub const MAX_REPLY: usize = 65_536;

/// What an extended END says about the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// How many bytes the answer has: in DATA, in windows, and the zeros of holes.
    pub bytes: u64,
    /// That of zlib and gzip.
    pub checksum: u32,
    /// Whether the file changed while it was read, so that the bytes may mix old and new.
    pub changed: bool,
}

impl Trailer {
    const MAGIC: &'static [u8; 8] = b"mqfs-end";
    const VERSION: u16 = 1;
    const CHANGED: u16 = 1;

    pub const SIZE: usize = 24;

    pub fn encode(&self) -> [u8; Self::SIZE] {
        let flags = if self.changed { Self::CHANGED } else { 0 };
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(Self::MAGIC);
        bytes[8..10].copy_from_slice(&Self::VERSION.to_ne_bytes());
        bytes[10..12].copy_from_slice(&flags.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.checksum.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.bytes.to_ne_bytes());
        bytes
    }

    /// Decodes the text of an END. None: a plain one, whatever it contains.
    pub fn decode(text: &[u8]) -> Result<Option<Self>, Malformed> {
        if !text.starts_with(Self::MAGIC) {
            return Ok(None);
        }
        let mut reader = Reader::new(text);
        reader.opening(Self::MAGIC, Self::VERSION)?;
        let changed = reader.u16()? & Self::CHANGED != 0;
        let checksum = reader.u32()?;
        Ok(Some(Self { bytes: reader.u64()?, checksum, changed }))
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason in words. It may be any bytes: escape it before you show it on a terminal.
    pub text: Vec<u8>,
    /// The reason as an errno. A plain server sends none.
    pub errno: Option<Errno>,
    /// The request's. Only a FAILURE that is a message has it, and not one that is a frame.
    pub cookie: Option<Cookie>,
}

impl Failure {
    const MAGIC: &'static [u8; 8] = b"mqfs-err";
    const VERSION: u16 = 1;

    /// Encodes the text of a FAILURE. A plain client does not look beyond its NUL.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.text.clone();
        pad_to_extension(&mut bytes);
        if self.errno.is_some() || self.cookie.is_some() {
            let errno = self.errno.map_or(0, |errno| errno as i32); // 0: unknown
            bytes.extend_from_slice(Self::MAGIC);
            bytes.extend_from_slice(&Self::VERSION.to_ne_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&errno.to_ne_bytes());
            bytes.extend_from_slice(self.cookie.as_ref().map_or(&[], |cookie| cookie.as_bytes()));
        }
        bytes
    }

    /// Decodes any bytes: the text ends at the first NUL, or with the message.
    pub fn decode(text: &[u8]) -> Self {
        let nul = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        let extension = extension_after(text, nul).and_then(|bytes| {
            let mut reader = Reader::new(bytes);
            reader.opening(Self::MAGIC, Self::VERSION).ok()?;
            reader.u16().ok()?; // reserved
            Some((Errno::from_raw(reader.i32().ok()?), reader.array().ok().map(Cookie::new)))
        });
        let (errno, cookie) = extension.unzip();
        let errno = errno.filter(|&errno| errno != Errno::UnknownErrno);
        Self { text: text[..nul].to_vec(), errno, cookie: cookie.flatten() }
    }
}
