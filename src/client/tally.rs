use crc32fast::Hasher;

use crate::wire::append_zeros;

/// A number of bytes and their CRC-32, that of zlib and gzip.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    pub(super) checksum: u32,
}

impl Tally {
    /// The checksum of so few bytes is computed bit by bit. crc32fast first asks the CPU what it
    /// can do, which takes 50 us in a virtual machine.
    const FEW: u64 = 512;

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.bytes <= Self::FEW {
            let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            let step = |crc, &byte: &u8| (0..8).fold(crc ^ u32::from(byte), shift);
            self.checksum = !bytes.iter().fold(!self.checksum, step);
        } else {
            let mut hasher = Hasher::new_with_initial(self.checksum);
            hasher.update(bytes);
            self.checksum = hasher.finalize();
        }
    }

    pub(super) fn add_zeros(&mut self, count: u64) {
        self.checksum = append_zeros(self.checksum, count);
        self.bytes += count;
    }
}
