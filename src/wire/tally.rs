//! What both ends count and check.

use crc32fast::Hasher;

/// A number of bytes and their CRC-32, that of zlib and gzip.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub bytes: u64,
    pub checksum: u32,
}

impl Tally {
    /// The checksum of so few bytes is computed bit by bit. crc32fast first asks the CPU what it
    /// can do, which takes 50 us in a virtual machine; its code and tables are two page faults.
    const FEW: u64 = 512;

    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.bytes <= Self::FEW {
            let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            let step = |crc, &byte: &u8| (0..8).fold(crc ^ u32::from(byte), shift);
            self.checksum = !bytes.iter().fold(!self.checksum, step);
        } else {
            self.add_many(bytes);
        }
    }

    #[inline(never)]
    fn add_many(&mut self, bytes: &[u8]) {
        let mut hasher = Hasher::new_with_initial(self.checksum);
        hasher.update(bytes);
        self.checksum = hasher.finalize();
    }

    /// Any number takes a few microseconds: the checksum of n zeros gives that of 2n.
    pub fn add_zeros(&mut self, mut count: u64) {
        self.bytes += count;
        let mut all = Hasher::new_with_initial(self.checksum);
        let mut zeros = Hasher::new_with_initial_len(crc32fast::hash(&[0]), 1);
        while count > 0 {
            if count & 1 == 1 {
                all.combine(&zeros);
            }
            zeros.combine(&zeros.clone());
            count >>= 1;
        }
        self.checksum = all.finalize();
    }
}
