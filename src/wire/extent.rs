//! Where a file has holes.

use super::bytes::{Malformed, Reader};

/// A hole of a file, and the data that follows it up to the next one. Lengths are in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub hole: u64,
    pub data: u64,
}

impl Extent {
    pub const MOST: usize = 65_536;

    pub(super) const SIZE: usize = 16;

    pub fn encode_all(extents: &[Self]) -> Vec<u8> {
        extents.iter().flat_map(|it| [it.hole, it.data]).flat_map(u64::to_ne_bytes).collect()
    }

    /// Decodes the text of an EXTENTS that follows this many bytes of a file. No file is longer
    /// than `i64::MAX`.
    pub fn decode_all(text: &[u8], before: u64) -> Result<Vec<Self>, Malformed> {
        let mut end = before;
        let decode = |bytes| {
            let mut reader = Reader::new(bytes);
            let extent = Self { hole: reader.u64()?, data: reader.u64()? };
            let all = end.checked_add(extent.hole).and_then(|all| all.checked_add(extent.data));
            let is_valid = |&all: &u64| all > end && i64::try_from(all).is_ok();
            end = all.filter(is_valid).ok_or(Malformed::Field)?;
            Ok(extent)
        };
        text.chunks(Self::SIZE).map(decode).collect()
    }
}
