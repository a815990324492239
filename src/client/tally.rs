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
    const FEW: u64 = 1024;

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let before = self.bytes;
        self.bytes += bytes.len() as u64;
        if self.bytes > Self::FEW {
            let new = || crc32fast::Hasher::new_with_initial_len(self.checksum, before);
            self.hasher.get_or_insert_with(new).update(bytes);
        } else {
            let step = |crc, &byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
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

/// The CRC-32 of every byte, less the inversions.
static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 8 * table.len() {
        let crc = if at % 8 == 0 { at as u32 / 8 } else { table[at / 8] };
        table[at / 8] = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        at += 1;
    }
    table
};
