//! What the bytes of a reply come from.

use std::time::Duration;

use super::failure::Unanswerable;
use crate::wire::Meta;

/// The longest time that a [`Source`] may work before it returns, so that a waiting client gets a
/// sign of life.
pub(super) const MAX_WORK: Duration = Duration::from_millis(500);

/// What the bytes of a reply come from.
pub(super) trait Source {
    /// Whether reading is about as fast as copying.
    const IS_QUICK: bool = false;

    /// The META at the beginning of the reply.
    fn meta(&self) -> Meta;

    /// How many bytes will come, if that is known.
    fn length(&self) -> Option<u64> {
        None
    }

    /// Writes the next bytes into the buffer.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable>;

    /// Whether the file differs at its end from what it was at the beginning.
    fn has_changed(&mut self) -> Result<bool, Unanswerable> {
        Ok(false)
    }
}

/// How far a source came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many bytes are in the buffer.
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
