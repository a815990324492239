//! Packed messages: listings and trees send messages within the bytes of DATA.

use nix::errno::Errno;

use crate::wire::{Failure, Packed, Reply, Trailer};

/// The trailer of an entry without bytes.
pub(super) const NO_BYTES: Trailer = Trailer { bytes: 0, checksum: 0, changed: false };

/// Packs the END of an entry.
pub(super) fn pack_end(out: &mut Vec<u8>, trailer: &Trailer) {
    Packed::append(out, Reply::END, &trailer.encode());
}

/// Packs a FAILURE in place of an entry's END.
pub(super) fn pack_failure(out: &mut Vec<u8>, text: &str, errno: Errno) {
    let failure = Failure { text: text.as_bytes().to_vec(), errno: Some(errno) };
    Packed::append(out, Reply::FAILURE, &failure.encode());
}

/// Packed messages that wait for room in a DATA.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    /// The buffer to append messages to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        &mut self.bytes
    }

    /// Moves as many bytes as there are and as fit into `to`, and returns how many.
    pub(super) fn take(&mut self, to: &mut [u8]) -> usize {
        let left = &self.bytes[self.taken..];
        let count = left.len().min(to.len());
        to[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        count
    }
}
