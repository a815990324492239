//! Where a listing or a tree begins.

use super::bytes::{Malformed, Reader};

/// The longest path of a [`Start`], in bytes: it must fit into a request beside the longest path.
pub const MAX_START: usize = 4032;

/// Where in a directory or a tree to begin. Entries are sorted, so a client that lost the rest of
/// them can ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start<'a> {
    /// The names of the directories that were entered, each followed by a slash, then the name of
    /// an entry of the last one, if any. Empty for the beginning.
    pub path: &'a [u8],
    /// How many bytes of that entry arrived, and their CRC-32. None if it arrived completely, so
    /// that the next entry is wanted.
    pub arrived: Option<(u64, u32)>,
}

impl<'a> Start<'a> {
    pub const BEGINNING: Start<'static> = Start { path: b"", arrived: None };

    /// The names of the entered directories, and the name of the entry.
    pub fn parts(&self) -> (impl Iterator<Item = &'a [u8]> + Clone + use<'a>, &'a [u8]) {
        let name = self.path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (entered, name) = self.path.split_at(name);
        (entered.split(|&byte| byte == b'/').filter(|name| !name.is_empty()), name)
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (bytes, checksum) = (reader.u64()?, reader.u32()?);
        let length = usize::from(reader.u16()?);
        reader.u16()?; // reserved
        let path = reader.bytes(length)?;
        let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
        let entered = path.strip_suffix(b"/").unwrap_or(path);
        let is_path = path.is_empty() || entered.split(|&byte| byte == b'/').all(is_name);
        if length > MAX_START || !is_path {
            return Err(Malformed::Field);
        }
        Ok(Self { path, arrived: (bytes != u64::MAX).then_some((bytes, checksum)) })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.path.len() <= MAX_START, "the start is too long");
        let (bytes, checksum) = self.arrived.unwrap_or((u64::MAX, 0));
        out.extend_from_slice(&bytes.to_ne_bytes());
        out.extend_from_slice(&checksum.to_ne_bytes());
        out.extend_from_slice(&(self.path.len() as u16).to_ne_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        out.extend_from_slice(self.path);
    }
}
