//! What a server answers: META, DATA and END, or FAILURE.

use std::fmt;

use nix::errno::Errno;

use super::bytes::{Reader, behind_text, end_text};
use super::{Malformed, mtype};
use sysv_ipc::MessageType;

/// One message of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// It cannot be done, or not to its end.
    Failure(Failure),
    /// The next bytes of the file.
    Data(&'a [u8]),
    /// The file has ended. A plain server says no more than that.
    End(Option<Trailer>),
    /// What is to come. A plain server does not say.
    Meta(Meta),
}

impl<'a> Reply<'a> {
    /// The type of a FAILURE.
    pub const FAILURE: MessageType = mtype(1);
    /// The type of a DATA.
    pub const DATA: MessageType = mtype(2);
    /// The type of an END.
    pub const END: MessageType = mtype(3);
    /// The type of a META.
    pub const META: MessageType = mtype(4);

    /// The reply in a message. An END with anything but our trailer in it is a plain one.
    ///
    /// # Errors
    /// [`Malformed`]: an unknown type, or a META or a trailer that this build does not know.
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

/// What a file is, and which part of it is to come. Opens an extended reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Its `st_mode`, inode(7).
    pub mode: u32,
    /// Its size in bytes. 0 where the kernel does not say, as for much of /proc.
    pub size: u64,
    /// When its content last changed: seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// The device that it lies on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// Where in the file the bytes to come begin.
    pub offset: u64,
    /// How many are announced; None where the file's size is unknown. END has the true number.
    pub length: Option<u64>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It could not be looked at: nothing but its name is known.
    Unknown,
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO.
    Fifo,
    /// A UNIX socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Regular => "regular file",
            Self::Directory => "directory",
            Self::Link => "symbolic link",
            Self::Fifo => "FIFO",
            Self::Socket => "socket",
            Self::CharacterDevice => "character device",
            Self::BlockDevice => "block device",
        })
    }
}

impl Kind {
    /// By their numbers in a META.
    const ALL: [Kind; 8] = [
        Self::Unknown,
        Self::Regular,
        Self::Directory,
        Self::Link,
        Self::Fifo,
        Self::Socket,
        Self::CharacterDevice,
        Self::BlockDevice,
    ];
}

impl Meta {
    const MAGIC: &'static [u8; 8] = b"mqfs-met";
    const VERSION: u16 = 1;

    /// The bytes of `mtext` in a META.
    pub const SIZE: usize = 72;

    /// The META as `mtext`, for a message of type [`Reply::META`].
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
        let kind = *Kind::ALL.get(usize::from(reader.u16()?)).ok_or(Malformed::Field)?;
        let (mode, size) = (reader.u32()?, reader.u64()?);
        let mtime = (reader.i64()?, reader.u32()?);
        reader.u32()?; // reserved
        let (device, inode) = (reader.u64()?, reader.u64()?);
        let (offset, length) = (reader.u64()?, reader.u64()?);
        let length = (length != u64::MAX).then_some(length);
        Ok(Self { kind, mode, size, mtime, device, inode, offset, length })
    }
}

/// What an extended END says of the transfer that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The bytes sent as DATA.
    pub bytes: u64,
    /// Their CRC-32, that of zlib and gzip.
    pub checksum: u32,
    /// Whether the file changed between its opening and its end: the bytes may be of both states.
    pub changed: bool,
}

impl Trailer {
    const MAGIC: &'static [u8; 8] = b"mqfs-end";
    const VERSION: u16 = 1;
    const CHANGED: u16 = 1;

    /// The bytes of `mtext` in an extended END.
    pub const SIZE: usize = 24;

    /// The trailer as `mtext`, for a message of type [`Reply::END`].
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

/// Why a request was not, or not wholly, answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason in words; any bytes, so to be cleaned before a terminal sees them.
    pub text: Vec<u8>,
    /// The reason as an errno. A plain server gives none.
    pub errno: Option<Errno>,
}

impl Failure {
    const MAGIC: &'static [u8; 8] = b"mqfs-err";
    const VERSION: u16 = 1;

    /// The failure as `mtext`, for a message of type [`Reply::FAILURE`]. The errno stands behind
    /// the text's NUL, where a plain client does not look.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.text.clone();
        end_text(&mut bytes);
        if let Some(errno) = self.errno {
            bytes.extend_from_slice(Self::MAGIC);
            bytes.extend_from_slice(&Self::VERSION.to_ne_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&(errno as i32).to_ne_bytes());
        }
        bytes
    }

    /// Whatever stands before the first NUL is the text, also if there is none.
    fn decode(text: &[u8]) -> Self {
        let nul = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        let errno = behind_text(text, nul).and_then(|bytes| Self::decode_errno(bytes).ok());
        Self { text: text[..nul].to_vec(), errno }
    }

    fn decode_errno(bytes: &[u8]) -> Result<Errno, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.opening(Self::MAGIC, Self::VERSION)?;
        reader.u16()?; // reserved
        match Errno::from_raw(reader.i32()?) {
            Errno::UnknownErrno => Err(Malformed::Field),
            errno => Ok(errno),
        }
    }
}
