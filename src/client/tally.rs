use crc32fast::Hasher;

use super::error::Error;
use crate::wire::{Trailer, append_zeros};

/// A number of bytes and their CRC-32, that of zlib and gzip.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    /// The CRC-32 while `hasher` is None.
    few: u32,
    /// None while there are few.
    hasher: Option<Hasher>,
}

impl Tally {
    /// The checksum of so few bytes is computed bit by bit. crc32fast first asks the CPU what it
    /// can do, which takes 50 us in a virtual machine.
    const FEW: u64 = 512;

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (few, before) = (self.few, self.bytes);
        self.bytes += bytes.len() as u64;
        if self.hasher.is_none() && self.bytes <= Self::FEW {
            let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            let step = |crc, &byte: &u8| (0..8).fold(crc ^ u32::from(byte), shift);
            self.few = !bytes.iter().fold(!few, step);
        } else {
            let hasher = || Hasher::new_with_initial_len(few, before);
            self.hasher.get_or_insert_with(hasher).update(bytes);
        }
    }

    pub(super) fn add_zeros(&mut self, count: u64) {
        self.few = append_zeros(self.checksum(), count);
        self.hasher = self.hasher.take().map(|_| Hasher::new_with_initial(self.few));
        self.bytes += count;
    }

    pub(super) fn checksum(&self) -> u32 {
        self.hasher.clone().map_or(self.few, Hasher::finalize)
    }

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
