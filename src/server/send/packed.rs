//! Directories and what is in them, as packed messages: what one thing is, what a directory holds, and
//! whole trees.

use nix::errno::Errno;

use crate::wire::{Failure, Packed, Reply, Trailer};

/// Packs the end of an entry.
pub(crate) fn pack_end(out: &mut Vec<u8>, trailer: &Trailer) {
    Packed::append(out, Reply::END, &trailer.encode());
}

/// The end of what has no bytes.
pub(crate) const NO_BYTES: Trailer = Trailer { bytes: 0, checksum: 0, changed: false };

/// Packs that an entry has no end.
pub(crate) fn pack_failure(out: &mut Vec<u8>, text: &str, errno: Errno) {
    let failure = Failure { text: text.as_bytes().to_vec(), errno: Some(errno) };
    Packed::append(out, Reply::FAILURE, &failure.encode());
}

/// Packed messages on their way out, taken as there is room for them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    /// For more, once all that is there was taken.
    pub(crate) fn add(&mut self) -> &mut Vec<u8> {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        &mut self.bytes
    }

    /// Moves as much as there is, and room for.
    pub(crate) fn take(&mut self, room: &mut [u8]) -> usize {
        let left = &self.bytes[self.taken..];
        let count = left.len().min(room.len());
        room[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        count
    }
}
