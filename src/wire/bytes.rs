//! Reading and writing native-endian fields one after the other.

use super::Malformed;

/// Takes fields off the front of some bytes, and nothing beyond their end.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed::TooShort)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (field, rest) = self.0.split_at_checked(count).ok_or(Malformed::TooShort)?;
        self.0 = rest;
        Ok(field)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_ne_bytes)
    }

    /// Takes a block's opening: its magic, and its version, which must be `version`.
    pub(super) fn opening(&mut self, magic: &[u8; 8], version: u16) -> Result<(), Malformed> {
        if self.array::<8>()? != *magic {
            return Err(Malformed::Magic);
        }
        match self.u16()? {
            found if found == version => Ok(()),
            found => Err(Malformed::Version(found)),
        }
    }
}

/// The bytes behind a text that ends in NUL, from the next multiple of 8; None if they end sooner.
/// So does every extension stand behind what plain peers read.
pub(super) fn behind_text(message: &[u8], nul: usize) -> Option<&[u8]> {
    message.get((nul + 1).next_multiple_of(8)..)
}

/// Ends a text in NUL and pads it to where the extension stands.
pub(super) fn end_text(message: &mut Vec<u8>) {
    message.push(0);
    message.resize(message.len().next_multiple_of(8), 0);
}
