//! The sorted names of a directory, in a fixed amount of memory however many there are.
//!
//! It reads a few names at a time, because reading a large directory takes longer than a client
//! waits for a sign of life.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeBounds};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Poll;

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::sys::errno_of;

/// Returns the names of a directory, sorted by their bytes. It reads the directory once for each
/// batch of as many names as the budget allows.
#[derive(Debug)]
pub(super) struct Names {
    directory: OwnedFd,
    /// The names of the batch that were not returned yet.
    batch: BTreeSet<Vec<u8>>,
    /// About how many bytes they take.
    size: usize,
    /// Where the batch begins and ends. An end means that there are more names after it.
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Unread,
    Reading(OwningIter),
    Read,
}

impl Names {
    /// The size of a batch in bytes: about 100,000 names.
    const BUDGET: usize = 8 << 20;

    /// About how many bytes a name takes in addition to its text.
    const OVERHEAD: usize = 48;

    /// How many names to read at once.
    const AT_ONCE: usize = 1024;

    /// Returns the names from this one on.
    pub(super) fn new(directory: OwnedFd, from: Bound<&[u8]>) -> Self {
        let (from, to) = (from.map(<[u8]>::to_vec), Bound::Unbounded);
        Self { directory, batch: BTreeSet::new(), size: 0, from, to, state: State::Unread }
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Returns the next name; None: there are no more. Pending: it has read some names, and needs
    /// to read more.
    pub(super) fn next(&mut self) -> Result<Poll<Option<Vec<u8>>>, Errno> {
        self.next_within(Self::BUDGET)
    }

    fn next_within(&mut self, budget: usize) -> Result<Poll<Option<Vec<u8>>>, Errno> {
        if self.read_some(budget)? {
            return Ok(Poll::Pending);
        }
        match self.batch.pop_first() {
            Some(name) => {
                self.size -= name.len() + Self::OVERHEAD;
                self.from = Bound::Excluded(name.clone());
                Ok(Poll::Ready(Some(name)))
            }
            None if self.to == Bound::Unbounded => Ok(Poll::Ready(None)),
            None => {
                self.forget();
                Ok(Poll::Pending)
            }
        }
    }

    /// Reads some names. False: the batch is complete.
    fn read_some(&mut self, budget: usize) -> Result<bool, Errno> {
        if let State::Unread = self.state {
            // The copy shares its position with this descriptor.
            lseek(&self.directory, 0, Whence::SeekSet)?;
            let copy = self.directory.try_clone().map_err(|error| errno_of(&error))?;
            self.state = State::Reading(Dir::from_fd(copy)?.into_iter());
        }
        let State::Reading(stream) = &mut self.state else { return Ok(false) };
        for _ in 0..Self::AT_ONCE {
            let Some(entry) = stream.next() else {
                self.state = State::Read;
                return Ok(false);
            };
            let name = entry?.file_name().to_bytes().to_vec();
            let batch = (self.from.as_ref(), self.to.as_ref());
            if matches!(&name[..], b"." | b"..") || !batch.contains(&name) {
                continue;
            }
            let size = name.len() + Self::OVERHEAD;
            // A file that is removed and made again meanwhile may come twice: readdir(3).
            if self.batch.insert(name) {
                self.size += size;
            }
            while self.size > budget
                && self.batch.len() > 1
                && let Some(last) = self.batch.pop_last()
            {
                self.size -= last.len() + Self::OVERHEAD;
                self.to = Bound::Excluded(last);
            }
        }
        Ok(true)
    }

    /// About how many bytes the names take.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Frees the memory of the names that were not returned yet, and reads them again later.
    pub(super) fn forget(&mut self) {
        self.batch.clear();
        (self.size, self.to, self.state) = (0, Bound::Unbounded, State::Unread);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn names_come_sorted_by_their_bytes_whatever_fits_into_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected: Vec<_> = (0..500).map(|n| format!("{}-{n}", n * 7919 % 500)).collect();
        for name in &expected {
            File::create(folder.path().join(name)).unwrap();
        }
        expected.sort();
        let names_from = |from: Bound<&[u8]>, budget, forgets: bool| {
            let directory = OwnedFd::from(File::open(folder.path()).unwrap());
            let (mut names, mut found) = (Names::new(directory, from), Vec::new());
            loop {
                match names.next_within(budget).unwrap() {
                    Poll::Pending => assert!(names.size() <= budget.max(64), "{budget}"),
                    Poll::Ready(Some(name)) => {
                        found.push(String::from_utf8(name).unwrap());
                        if forgets && found.len() % 7 == 0 {
                            names.forget();
                        }
                    }
                    Poll::Ready(None) => return found,
                }
            }
        };
        for budget in [1, 500, 10_000, 1 << 20] {
            for forgets in [false, true] {
                let found = names_from(Bound::Excluded(b""), budget, forgets);
                assert_eq!(found, expected, "{budget} {forgets}");
            }
        }
        let from = expected[250].as_bytes();
        assert_eq!(names_from(Bound::Included(from), 500, false), expected[250..]);
        assert_eq!(names_from(Bound::Excluded(from), 500, false), expected[251..]);
    }
}
