//! What a file is: the text of a META, and one entry of a listing.

use std::fmt;

use nix::errno::Errno;

use super::bytes::{Malformed, Reader};

/// What a file is, and which part of it follows. The bytes of a listing are these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    pub stat: Stat,
    /// Why the server cannot look at the file, or cannot read the link.
    pub errno: Option<Errno>,
    /// Where in the file the following bytes begin.
    pub offset: u64,
    /// How many bytes will probably follow, if that is known. END has the true number.
    pub length: Option<u64>,
    /// The name in its directory; any bytes. Empty for the path that was asked for.
    pub name: &'a [u8],
    /// Where a symbolic link leads; any bytes.
    pub target: &'a [u8],
}

/// The metadata of a file: stat(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Type and permissions: `st_mode`, inode(7).
    pub mode: u32,
    /// In bytes. The kernel says 0 for much of /proc, whatever its size.
    pub size: u64,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    pub device: u64,
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    /// The device number of a device file: `st_rdev`.
    pub special: u64,
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
    /// Each kind with its name, at the index that is its number in an entry.
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

impl<'a> Entry<'a> {
    const MAGIC: &'static [u8; 8] = b"mqfs-met";
    const VERSION: u16 = 1;

    /// The size in bytes without name and target.
    pub const SIZE: usize = 104;

    /// Appends the entry. Panics as [`encode`](Self::encode) does.
    pub fn append(&self, out: &mut Vec<u8>) {
        self.encode(|bytes| out.extend_from_slice(bytes));
    }

    /// Passes on the entry, part by part. Panics if name or target exceeds 65,535 bytes, as no file
    /// system allows.
    pub fn encode(&self, mut add: impl FnMut(&[u8])) {
        let stat = &self.stat;
        let [name, target] = [self.name, self.target]
            .map(|text| u16::try_from(text.len()).expect("a name as file systems have them"));
        add(Self::MAGIC);
        add(&Self::VERSION.to_ne_bytes());
        add(&(stat.kind as u16).to_ne_bytes());
        add(&stat.mode.to_ne_bytes());
        add(&stat.size.to_ne_bytes());
        add(&stat.mtime.0.to_ne_bytes());
        add(&stat.mtime.1.to_ne_bytes());
        add(&self.errno.map_or(0, |errno| errno as i32).to_ne_bytes());
        add(&stat.device.to_ne_bytes());
        add(&stat.inode.to_ne_bytes());
        add(&self.offset.to_ne_bytes());
        add(&self.length.unwrap_or(u64::MAX).to_ne_bytes());
        add(&stat.uid.to_ne_bytes());
        add(&stat.gid.to_ne_bytes());
        add(&stat.links.to_ne_bytes());
        add(&stat.special.to_ne_bytes());
        add(&name.to_ne_bytes());
        add(&target.to_ne_bytes());
        add(&[0; 4]); // reserved
        add(self.name);
        add(self.target);
    }

    /// Decodes the entry at the beginning of these bytes.
    pub fn decode(text: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(text);
        reader.opening(Self::MAGIC, Self::VERSION)?;
        let (kind, _) = *Kind::ALL.get(usize::from(reader.u16()?)).ok_or(Malformed::Field)?;
        let (mode, size) = (reader.u32()?, reader.u64()?);
        let mtime = (reader.i64()?, reader.u32()?);
        let errno = Some(reader.i32()?).filter(|&errno| errno != 0).map(Errno::from_raw);
        let (device, inode) = (reader.u64()?, reader.u64()?);
        let (offset, length) = (reader.u64()?, reader.u64()?);
        let length = (length != u64::MAX).then_some(length);
        let (uid, gid) = (reader.u32()?, reader.u32()?);
        let (links, special) = (reader.u64()?, reader.u64()?);
        let (name, target) = (reader.u16()?, reader.u16()?);
        reader.u32()?; // reserved
        let (name, target) = (reader.bytes(name.into())?, reader.bytes(target.into())?);
        let stat = Stat { kind, mode, size, mtime, device, inode, uid, gid, links, special };
        Ok(Self { stat, errno, offset, length, name, target })
    }

    pub fn encoded_len(&self) -> usize {
        Self::SIZE + self.name.len() + self.target.len()
    }
}
