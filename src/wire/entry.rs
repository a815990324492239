//! The content of a listing's or a tree's DATA: messages packed one after the other, and the
//! directory entries in them.

use sysv_ipc::MessageType;

use super::bytes::{Malformed, Reader};
use super::reply::{Kind, Meta, Reply};

/// The header of a packed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How many bytes of text follow.
    pub length: u32,
    /// The message's type, one of those of [`Reply`].
    pub mtype: MessageType,
}

impl Packed {
    /// The size of the header in bytes.
    pub const SIZE: usize = 8;

    /// The most bytes of text in a message that is not DATA.
    pub const LONGEST: usize = 16_384;

    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&(self.mtype.get() as u16).to_ne_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (length, number) = (reader.u32()?, reader.u16()?);
        reader.u16()?; // reserved
        let mtype = MessageType::new(number.into()).filter(|&mtype| mtype <= Reply::META);
        let mtype = mtype.ok_or(Malformed::Type(number.into()))?;
        if mtype != Reply::DATA && length as usize > Self::LONGEST {
            return Err(Malformed::TooLong);
        }
        Ok(Self { length, mtype })
    }

    /// Appends a message with its header.
    pub fn append(out: &mut Vec<u8>, mtype: MessageType, text: &[u8]) {
        out.extend_from_slice(&Self { length: text.len() as u32, mtype }.encode());
        out.extend_from_slice(text);
    }
}

/// A directory entry, or the top of a tree: the text of a packed META.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The part that every META has.
    pub meta: Meta,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    /// The device number of a device file: `st_rdev`.
    pub special: u64,
    /// The name in its directory; any bytes. Empty for the path that was asked for.
    pub name: &'a [u8],
    pub target: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The size in bytes without name and target.
    pub const SIZE: usize = Meta::SIZE + 32;

    /// An entry of which only the name is known, since the server cannot look at it.
    pub fn unknown(name: &'a [u8]) -> Self {
        let meta = Meta { kind: Kind::Unknown, length: Some(0), ..Meta::default() };
        Self { meta, name, ..Self::default() }
    }

    /// Appends the entry as a packed META.
    ///
    /// # Panics
    /// If name or target is longer than 65,535 bytes. No file system has such.
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

    /// Decodes the text of a packed META.
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
