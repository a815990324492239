//! Where the bytes of an answer come from.

use super::failure::Unanswerable;
use super::file::OpenedFile;

/// Where the bytes of an answer come from, opened with the caller's rights.
pub(crate) trait Source {
    /// How many bytes are left. Only files tell; they are read about as fast as they are copied.
    fn left(&self) -> Option<u64> {
        None
    }

    /// Writes the next bytes into the buffer, and returns how many. 0: there are no more.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Unanswerable>;

    /// The file, if it has so many bytes left that a window may pay.
    fn large_file(&mut self) -> Option<&mut OpenedFile> {
        None
    }

    /// Whether the file changed while it was read.
    fn has_changed(&self) -> Result<bool, Unanswerable> {
        Ok(false)
    }
}

/// How many of the bytes that are left fit into a buffer of this size. None: it is unknown how many
/// are left.
pub(super) fn at_most(left: Option<u64>, size: usize) -> usize {
    left.and_then(|left| usize::try_from(left).ok()).map_or(size, |left| left.min(size))
}
