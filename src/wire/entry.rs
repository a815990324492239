//! What the DATA of a listing or a tree holds: messages within messages, packed one behind the other,
//! and in them entries with their names.

use super::bytes::Reader;
use super::{Kind, Malformed, Meta, Reply, mtype};
use sysv_ipc::MessageType;

/// The opening of a packed message: how long it is, and its type, which is that of a [`Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// The bytes of the message, which follow.
    pub length: u32,
    /// Its type.
    pub mtype: MessageType,
}

impl Packed {
    /// The bytes of the opening.
    pub const SIZE: usize = 8;

    /// The longest message but DATA, in bytes.
    pub const LONGEST: usize = 16_384;

    /// The opening as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&(self.mtype.get() as u16).to_ne_bytes());
        bytes
    }

    /// The opening in these bytes.
    ///
    /// # Errors
    /// [`Malformed`]: no type of a reply, or longer than a message of that type can be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (length, number) = (reader.u32()?, reader.u16()?);
        reader.u16()?; // reserved
        let mtype = match number {
            1..=4 => mtype(number.into()),
            _ => return Err(Malformed::Type(number.into())),
        };
        if mtype != Reply::DATA && length as usize > Self::LONGEST {
            return Err(Malformed::TooLong);
        }
        Ok(Self { length, mtype })
    }

    /// Appends a message, opening and all.
    pub fn append(out: &mut Vec<u8>, mtype: MessageType, text: &[u8]) {
        out.extend_from_slice(&Self { length: text.len() as u32, mtype }.encode());
        out.extend_from_slice(text);
    }
}

/// What a packed META says: a [`Meta`], and what else there is to say of an entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub meta: Meta,
    /// Whose it is.
    pub uid: u32,
    /// Of which group.
    pub gid: u32,
    /// How many names it has.
    pub links: u64,
    /// Which device it is, if it is one: `st_rdev`.
    pub special: u64,
    /// Its name within its directory; any bytes. Empty for what was asked for itself.
    pub name: &'a [u8],
    /// Where a symbolic link leads.
    pub target: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The bytes of a packed META without its name and target.
    pub const SIZE: usize = Meta::SIZE + 32;

    /// What could not be looked at: nothing but its name is known.
    pub fn unknown(name: &'a [u8]) -> Self {
        let meta = Meta {
            kind: Kind::Unknown,
            mode: 0,
            size: 0,
            mtime: (0, 0),
            device: 0,
            inode: 0,
            offset: 0,
            length: Some(0),
        };
        Self { meta, uid: 0, gid: 0, links: 0, special: 0, name, target: b"" }
    }

    /// Appends the entry as a packed META.
    ///
    /// # Panics
    /// If name or target has more than 65,535 bytes, which none in a file system has.
    pub fn append(&self, out: &mut Vec<u8>) {
        let [name, target] = [self.name, self.target]
            .map(|text| u16::try_from(text.len()).expect("a name as file systems have them"));
        let length = Self::SIZE as u32 + u32::from(name) + u32::from(target);
        out.extend_from_slice(&Packed { length, mtype: Reply::META }.encode());
        out.extend_from_slice(&self.meta.encode());
        out.extend_from_slice(&self.uid.to_ne_bytes());
        out.extend_from_slice(&self.gid.to_ne_bytes());
        out.extend_from_slice(&self.links.to_ne_bytes());
        out.extend_from_slice(&self.special.to_ne_bytes());
        out.extend_from_slice(&name.to_ne_bytes());
        out.extend_from_slice(&target.to_ne_bytes());
        out.extend_from_slice(&[0; 4]); // reserved
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.target);
    }

    /// The entry in the text of a packed META.
    ///
    /// # Errors
    /// [`Malformed`]: it is none that this build knows.
    pub fn decode(text: &'a [u8]) -> Result<Self, Malformed> {
        let meta = Meta::decode(text)?;
        let mut reader = Reader::new(text.get(Meta::SIZE..).unwrap_or_default());
        let (uid, gid) = (reader.u32()?, reader.u32()?);
        let (links, special) = (reader.u64()?, reader.u64()?);
        let (name, target) = (reader.u16()?, reader.u16()?);
        reader.u32()?; // reserved
        let (name, target) = (reader.bytes(name.into())?, reader.bytes(target.into())?);
        Ok(Self { meta, uid, gid, links, special, name, target })
    }
}
