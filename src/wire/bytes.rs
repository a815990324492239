//! Reading native-endian fields one after the other, and where extensions begin.

use super::malformed::Malformed;

/// Takes fields off the front of a byte slice; an error instead of reading beyond its end.
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

    /// Takes the magic and the version that open a block, and checks both.
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

/// The extension of a message: the bytes after the text's NUL, from the next multiple of 8. Plain
/// peers do not read that far. None if the message ends before.
pub(super) fn extension_after(message: &[u8], nul: usize) -> Option<&[u8]> {
    message.get((nul + 1).next_multiple_of(8)..)
}

/// Ends a text with NUL, and pads it to where the extension begins.
pub(super) fn pad_to_extension(message: &mut Vec<u8>) {
    message.push(0);
    message.resize(message.len().next_multiple_of(8), 0);
}
