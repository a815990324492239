//! Replies: META, DATA and END, or FAILURE.

use std::fmt;

use nix::errno::Errno;
use sysv_ipc::MessageType;

use super::bytes::{Malformed, Reader, extension_after, pad_to_extension};

/// The most bytes of `mtext` in a message to a plain client, whose buffer may be no larger.
pub const MAX_PLAIN_REPLY: usize = 4096;

/// The most bytes of `mtext` in a message to an extended client.
pub const MAX_REPLY: usize = 65_536;

/// One message of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// The request failed, at once or on the way.
    Failure(Failure),
    Data(&'a [u8]),
    /// The file has ended. A plain server sends no trailer.
    End(Option<Trailer>),
    /// What the file is, before its bytes. A plain server does not send this.
    Meta(Meta),
}

impl<'a> Reply<'a> {
    pub const FAILURE: MessageType = MessageType::new(1).unwrap();
    pub const DATA: MessageType = MessageType::new(2).unwrap();
    pub const END: MessageType = MessageType::new(3).unwrap();
    pub const META: MessageType = MessageType::new(4).unwrap();

    /// Decodes a message. An END without our trailer is a plain one, whatever it contains.
    pub fn decode(mtype: MessageType, text: &'a [u8]) -> Result<Self, Malformed> {
        match mtype {
            Self::FAILURE => Ok(Self::Failure(Failure::decode(text))),
            Self::DATA => Ok(Self::Data(text)),
            Self::END if text.starts_with(Trailer::MAGIC) => {
                Trailer::decode(text).map(|trailer| Self::End(Some(trailer)))
            }
            Self::END => Ok(Self::End(None)),
            Self::META => Meta::decode(text).map(Self::Meta),
            other => Err(Malformed::Type(other.get())),
        }
    }
}

/// What a file is, and which part of it follows: the first message of an extended reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    /// Type and permissions: `st_mode`, inode(7).
    pub mode: u32,
    /// The size in bytes. The kernel says 0 for much of /proc, whatever its size.
    pub size: u64,
    /// When the content last changed: seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// The number of the device that holds the file.
    pub device: u64,
    pub inode: u64,
    /// Where in the file the following bytes begin.
    pub offset: u64,
    /// How many bytes will probably follow. None if the size is unknown. END has the true number.
    pub length: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The server cannot look at the file.
    #[default]
    Unknown,
    Regular,
    Directory,
    Link,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL[*self as usize].1)
    }
}

impl Kind {
    /// Each kind with its name, at the index that is its number in a META.
    const ALL: [(Kind, &str); 8] = [
        (Self::Unknown, "unknown"),
        (Self::Regular, "regular file"),
        (Self::Directory, "directory"),
        (Self::Link, "symbolic link"),
        (Self::Fifo, "FIFO"),
        (Self::Socket, "socket"),
        (Self::CharacterDevice, "character device"),
        (Self::BlockDevice, "block device"),
    ];
}

impl Meta {
    const MAGIC: &'static [u8; 8] = b"mqfs-met";
    const VERSION: u16 = 1;

    /// The size of `mtext` in bytes.
    pub const SIZE: usize = 72;

    /// Encodes the META as the `mtext` of a message of type [`Reply::META`].
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(Self::MAGIC);
        bytes[8..10].copy_from_slice(&Self::VERSION.to_ne_bytes());
        bytes[10..12].copy_from_slice(&(self.kind as u16).to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.mode.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.mtime.0.to_ne_bytes());
        bytes[32..36].copy_from_slice(&self.mtime.1.to_ne_bytes());
        bytes[40..48].copy_from_slice(&self.device.to_ne_bytes());
        bytes[48..56].copy_from_slice(&self.inode.to_ne_bytes());
        bytes[56..64].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[64..72].copy_from_slice(&self.length.unwrap_or(u64::MAX).to_ne_bytes());
        bytes
    }

    pub(super) fn decode(text: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(text);
        reader.opening(Self::MAGIC, Self::VERSION)?;
        let (kind, _) = *Kind::ALL.get(usize::from(reader.u16()?)).ok_or(Malformed::Field)?;
        let (mode, size) = (reader.u32()?, reader.u64()?);
        let mtime = (reader.i64()?, reader.u32()?);
        reader.u32()?; // reserved
        let (device, inode) = (reader.u64()?, reader.u64()?);
        let (offset, length) = (reader.u64()?, reader.u64()?);
        let length = (length != u64::MAX).then_some(length);
        Ok(Self { kind, mode, size, mtime, device, inode, offset, length })
    }
}

/// What an extended END says about the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// How many bytes were sent as DATA.
    pub bytes: u64,
    /// Their CRC-32, that of zlib and gzip.
    pub checksum: u32,
    /// Whether the file changed while it was read, so that the bytes may mix old and new.
    pub changed: bool,
}

impl Trailer {
    const MAGIC: &'static [u8; 8] = b"mqfs-end";
    const VERSION: u16 = 1;
    const CHANGED: u16 = 1;

    /// The size of `mtext` in bytes.
    pub const SIZE: usize = 24;

    /// Encodes the trailer as the `mtext` of a message of type [`Reply::END`].
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

    fn decode(text: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(text);
        reader.opening(Self::MAGIC, Self::VERSION)?;
        let changed = reader.u16()? & Self::CHANGED != 0;
        let checksum = reader.u32()?;
        Ok(Self { bytes: reader.u64()?, checksum, changed })
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason in words. It may be any bytes: escape it before you show it on a terminal.
    pub text: Vec<u8>,
    /// The reason as an errno. A plain server sends none.
    pub errno: Option<Errno>,
}

impl Failure {
    const MAGIC: &'static [u8; 8] = b"mqfs-err";
    const VERSION: u16 = 1;

    /// Encodes the failure as the `mtext` of a message of type [`Reply::FAILURE`]. The errno comes
    /// after the text's NUL, where a plain client does not look.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.text.clone();
        pad_to_extension(&mut bytes);
        if let Some(errno) = self.errno {
            bytes.extend_from_slice(Self::MAGIC);
            bytes.extend_from_slice(&Self::VERSION.to_ne_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&(errno as i32).to_ne_bytes());
        }
        bytes
    }

    /// The text ends at the first NUL, or with the message.
    fn decode(text: &[u8]) -> Self {
        let nul = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        let errno = extension_after(text, nul).and_then(|bytes| {
            let mut reader = Reader::new(bytes);
            reader.opening(Self::MAGIC, Self::VERSION).ok()?;
            reader.u16().ok()?; // reserved
            Some(Errno::from_raw(reader.i32().ok()?)).filter(|&errno| errno != Errno::UnknownErrno)
        });
        Self { text: text[..nul].to_vec(), errno }
    }
}
