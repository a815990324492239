//! What the bytes of a reply come from.

use std::os::fd::BorrowedFd;

use super::failure::Unanswerable;
use crate::wire::Meta;

/// What the bytes of a reply come from, opened with the caller's rights.
pub(crate) trait Source {
    /// The META at the beginning of the reply.
    fn meta(&self) -> Meta;

    /// How many bytes will come. Only files tell; they are read about as fast as they are copied.
    fn length(&self) -> Option<u64> {
        None
    }

    /// The directory below which it opens more.
    fn tree(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Writes the next bytes into the buffer.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable>;

    /// Whether the file changed while it was read.
    fn has_changed(&mut self) -> Result<bool, Unanswerable> {
        Ok(false)
    }
}

/// How far a source came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// This many bytes are in the buffer.
    Bytes(usize),
    /// No bytes yet; more work is needed.
    Working,
    /// There are no more bytes.
    Ended,
}

/// How many of the bytes that are left fit into a buffer of this size. None: it is unknown how many
/// are left.
pub(super) fn at_most(left: Option<u64>, size: usize) -> usize {
    left.and_then(|left| usize::try_from(left).ok()).map_or(size, |left| left.min(size))
}
