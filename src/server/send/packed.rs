//! Packed messages: listings and trees send messages within the bytes of DATA.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::failure::Unanswerable;
use super::source::Progress;
use crate::wire::{Entry, Failure, Packed, Reply, Trailer};

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

/// Packs an entry that the server cannot look at.
pub(super) fn pack_unknown(out: &mut Vec<u8>, name: &[u8], errno: Errno) {
    Entry::unknown(name).append(out);
    pack_failure(out, errno.desc(), errno);
}

/// Moves packed bytes into `to`, as many as fit, and returns how many it moved.
pub(super) fn take(packed: &mut Vec<u8>, to: &mut [u8]) -> usize {
    let count = packed.len().min(to.len());
    to[..count].copy_from_slice(&packed[..count]);
    packed.drain(..count);
    count
}

/// Fills a buffer step by step, but returns after some time, so that a waiting client gets a sign
/// of life. A step gets the rest of the buffer and returns how many bytes it wrote; None: it was
/// the last.
pub(super) fn fill_in_steps(
    buffer: &mut [u8],
    mut step: impl FnMut(&mut [u8]) -> Result<Option<usize>, Errno>,
) -> Result<Progress, Unanswerable> {
    const MAX_WORK: Duration = Duration::from_millis(500);
    let (begin, mut filled) = (Instant::now(), 0);
    while filled < buffer.len() && begin.elapsed() <= MAX_WORK {
        match step(&mut buffer[filled..]).map_err(Unanswerable::read)? {
            Some(count) => filled += count,
            None if filled == 0 => return Ok(Progress::Ended),
            None => break,
        }
    }
    Ok(if filled > 0 { Progress::Bytes(filled) } else { Progress::Working })
}
