//! Reading native-endian fields one after the other, why that fails, and where extensions begin.

/// Why bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    #[error("too short")]
    TooShort,
    #[error("too long")]
    TooLong,
    #[error("a reply queue id below zero")]
    QueueId,
    /// The first `PATH_MAX` bytes of the path contain no NUL.
    #[error("a path without its NUL")]
    UnterminatedPath,
    #[error("no magic")]
    Magic,
    #[error("unknown version {0}")]
    Version(u16),
    #[error("unknown message type {0}")]
    Type(libc::c_long),
    #[error("a field out of range")]
    Field,
}

/// Takes fields off the front of a byte slice. Fails instead of reading beyond its end.
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

macro_rules! integers {
    ($($integer:ident)*) => {
        impl Reader<'_> {
            $(pub(super) fn $integer(&mut self) -> Result<$integer, Malformed> {
                self.array().map($integer::from_ne_bytes)
            })*
        }
    };
}

integers!(u16 u32 i32 u64 i64);

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
