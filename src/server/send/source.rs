//! Where the bytes of an answer come from: a file or a directory, opened with the caller's rights.

use std::ops::Range;

use sysv_ipc::Attached;

use super::failure::Unanswerable;
use crate::wire::Extent;

pub(crate) trait Source {
    /// How many bytes are left. Only files tell; they are read about as fast as they are copied.
    fn left(&self) -> Option<u64> {
        None
    }

    /// Searches for the next holes to leave out, if it is time to. They must be announced.
    fn new_extents(&mut self) -> &[Extent] {
        &[]
    }

    /// Skips a hole that is left out, if one is next, and returns its length.
    fn skip_hole(&mut self) -> Result<u64, Unanswerable> {
        Ok(0)
    }

    /// Writes the next bytes into the buffer, and returns how many. 0: there are no more.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Unanswerable>;

    /// How many bytes are left, if so many that a window may pay.
    fn left_for_window(&self) -> Option<u64> {
        None
    }

    /// As `fill`, in a range of shared memory. 0 also if the bytes are not for a window.
    fn fill_shared(&mut self, _: &Attached, _: Range<usize>) -> Result<usize, Unanswerable> {
        Ok(0)
    }

    fn has_changed(&self) -> Result<bool, Unanswerable> {
        Ok(false)
    }
}

/// How many of the bytes that are left, if that is known, fit into a buffer of this size.
pub(super) fn at_most(left: Option<u64>, size: usize) -> usize {
    left.and_then(|left| usize::try_from(left).ok()).map_or(size, |left| left.min(size))
}
