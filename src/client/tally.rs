//! Counting and verifying bytes.

use super::error::Error;
use crate::wire::Trailer;

/// A number of bytes and their CRC-32, that of zlib and gzip.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    /// The checksum of few bytes.
    checksum: u32,
    /// That of more.
    hasher: Option<crc32fast::Hasher>,
}

impl Tally {
    /// Up to this many, a table will do. crc32fast first asks the CPU what it can do, and each
    /// CPUID takes microseconds in a virtual machine.
    const FEW: u64 = 512;

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let before = self.bytes;
        self.bytes += bytes.len() as u64;
        if self.bytes > Self::FEW {
            let new = || crc32fast::Hasher::new_with_initial_len(self.checksum, before);
            self.hasher.get_or_insert_with(new).update(bytes);
        } else {
            let half = |crc: u32| TABLE[(crc & 15) as usize] ^ (crc >> 4);
            let step = |crc, &byte: &u8| half(half(crc ^ u32::from(byte)));
            self.checksum = !bytes.iter().fold(!self.checksum, step);
        }
    }

    pub(super) fn checksum(&self) -> u32 {
        self.hasher.clone().map_or(self.checksum, crc32fast::Hasher::finalize)
    }

    /// Checks that the bytes that arrived are those that the server sent.
    pub(super) fn verify(&self, trailer: &Trailer) -> Result<(), Error> {
        if trailer.bytes != self.bytes {
            return Err(Error::corrupt("not as many bytes arrived as were sent"));
        }
        if trailer.checksum != self.checksum() {
            return Err(Error::corrupt("the checksum is not that of the bytes sent"));
        }
        Ok(())
    }
}

/// The CRC-32 of every half byte, less the inversions.
#[rustfmt::skip]
const TABLE: [u32; 16] = [
    0, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
];
