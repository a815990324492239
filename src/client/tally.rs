//! Counting and verifying bytes.

use super::error::Error;
use crate::wire::Trailer;

/// A number of bytes and their CRC-32, that of zlib and gzip.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    hasher: crc32fast::Hasher,
}

impl Tally {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    pub(super) fn checksum(&self) -> u32 {
        self.hasher.clone().finalize()
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
