//! The sorted names of a directory, in a fixed amount of memory however many there are.
//!
//! It reads a few names at a time, because reading a large directory takes longer than a client
//! waits for a sign of life.

use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::sys::errno_of;

/// Names of a directory, sorted by their bytes: a batch of as many as the budget allows, then the
/// next batch.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names, one after the other, in the order in which they were read.
    bytes: Vec<u8>,
    /// The position and length of each name, sorted by name once all are read.
    places: Vec<(u32, u16)>,
    next: usize,
    /// Whether there are more names after this batch.
    more: bool,
    /// The batch starts after this name; if `with_from`, at this name.
    from: Vec<u8>,
    with_from: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unread,
    Reading(Scan),
    Read,
}

#[derive(Debug)]
struct Scan {
    stream: OwningIter,
    /// The last name that fits into the batch. None: so far all do.
    last: Option<Vec<u8>>,
}

impl Names {
    /// The size of a batch at the top of a tree, in bytes. 100,000 names of 20 bytes take a third.
    const BUDGET: usize = 8 << 20;

    /// The bytes that a name takes beside its own.
    const PLACE: usize = size_of::<(u32, u16)>();

    /// How many names to read at once.
    const AT_ONCE: usize = 1024;

    /// All names.
    pub(super) fn all() -> Self {
        Self::default()
    }

    /// The names after this one.
    pub(super) fn after(name: &[u8]) -> Self {
        Self { from: name.to_vec(), ..Self::default() }
    }

    /// This name and those after it.
    pub(super) fn starting_at(name: &[u8]) -> Self {
        Self { from: name.to_vec(), with_from: true, ..Self::default() }
    }

    /// Reads some names. False: the batch is complete, and [`next`](Self::next) returns its names.
    /// The deeper the directory is in a tree, the smaller its batches are.
    pub(super) fn read_some(&mut self, directory: &OwnedFd, depth: usize) -> Result<bool, Errno> {
        self.read_within(Self::BUDGET >> depth.min(4), directory)
    }

    fn read_within(&mut self, budget: usize, directory: &OwnedFd) -> Result<bool, Errno> {
        let mut scan = match std::mem::take(&mut self.state) {
            State::Unread => {
                // The copy below shares its position with this descriptor.
                lseek(directory, 0, Whence::SeekSet)?;
                let copy = directory.as_fd().try_clone_to_owned();
                let stream = Dir::from_fd(copy.map_err(|error| errno_of(&error))?)?;
                Scan { stream: stream.into_iter(), last: None }
            }
            State::Reading(scan) => scan,
            State::Read => {
                self.state = State::Read;
                return Ok(false);
            }
        };
        for _ in 0..Self::AT_ONCE {
            let Some(entry) = scan.stream.next() else {
                self.sort();
                self.state = State::Read;
                return Ok(false);
            };
            self.consider(entry?.file_name().to_bytes(), scan.last.as_deref());
            if self.size() > 2 * budget {
                scan.last = Some(self.keep_first(budget));
            }
        }
        self.state = State::Reading(scan);
        Ok(true)
    }

    fn consider(&mut self, name: &[u8], last: Option<&[u8]>) {
        let from = &self.from[..];
        let is_before = if self.with_from { name < from } else { name <= from };
        let is_after = last.is_some_and(|last| name > last);
        self.more |= is_after;
        if !matches!(name, b"." | b"..") && !is_before && !is_after {
            self.add(name);
        }
    }

    fn add(&mut self, name: &[u8]) {
        self.places.push((self.bytes.len() as u32, name.len() as u16));
        self.bytes.extend_from_slice(name);
    }

    /// About how many bytes the batch takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.places.len() * Self::PLACE
    }

    /// Sorts the names and drops duplicates: a file that is removed and made again while the
    /// directory is read may come twice, readdir(3).
    fn sort(&mut self) {
        let name = |&place: &(u32, u16)| at(&self.bytes, place);
        self.places.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        self.places.dedup_by(|one, other| name(one) == name(other));
    }

    /// Drops all names but the first ones, and returns the last of those.
    fn keep_first(&mut self, budget: usize) -> Vec<u8> {
        self.sort();
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        let all = std::mem::take(self);
        for &place in &all.places {
            if bytes.len() + places.len() * Self::PLACE > budget {
                break;
            }
            let name = at(&all.bytes, place);
            places.push((bytes.len() as u32, name.len() as u16));
            bytes.extend_from_slice(name);
        }
        *self = Self { bytes, places, more: true, ..all };
        self.places.last().map_or_else(Vec::new, |&last| at(&self.bytes, last).to_vec())
    }

    /// Returns the next name of the batch.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let place = *self.places.get(self.next)?;
        self.next += 1;
        Some(at(&self.bytes, place))
    }

    /// After the last name of a batch: starts the next batch. False: there is none.
    pub(super) fn next_batch(&mut self) -> bool {
        let more = self.more;
        if more {
            self.forget();
        }
        more
    }

    /// Frees the memory of the names that were not returned yet, and reads them again later.
    pub(super) fn forget(&mut self) {
        *self = match self.next.checked_sub(1) {
            Some(taken) => Self::after(at(&self.bytes, self.places[taken])),
            None => Self {
                from: std::mem::take(&mut self.from),
                with_from: self.with_from,
                ..Self::default()
            },
        };
    }
}

fn at(bytes: &[u8], (start, length): (u32, u16)) -> &[u8] {
    &bytes[start as usize..][..usize::from(length)]
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_name_that_is_read_twice_comes_once() {
        let mut names = Names::default();
        [&b"b"[..], b"a", b"b", b"ab", b"a"].into_iter().for_each(|name| names.add(name));
        names.sort();
        for expected in [b"a".as_slice(), b"ab", b"b"] {
            assert_eq!(names.next(), Some(expected));
        }
        assert_eq!(names.next(), None);
    }

    #[test]
    fn names_come_sorted_by_their_bytes_whatever_fits_into_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected: Vec<_> = (0..500).map(|n| format!("{}-{n}", n * 7919 % 500)).collect();
        for name in &expected {
            File::create(folder.path().join(name)).unwrap();
        }
        expected.sort();
        let directory = OwnedFd::from(File::open(folder.path()).unwrap());
        for (budget, forgets) in
            [1, 50, 1000, 1 << 20].map(|budget| [(budget, false), (budget, true)]).concat()
        {
            let (mut names, mut found) = (Names::all(), Vec::new());
            loop {
                while names.read_within(budget, &directory).unwrap() {}
                assert!(names.size() <= 2 * budget + 64, "{budget}");
                while let Some(name) = names.next() {
                    found.push(String::from_utf8(name.to_vec()).unwrap());
                    if forgets && found.len() % 7 == 0 {
                        names.forget();
                        while names.read_within(budget, &directory).unwrap() {}
                    }
                }
                if !names.next_batch() {
                    break;
                }
            }
            assert_eq!(found, expected, "{budget}");
        }
        let from = expected[250].as_bytes();
        for (mut names, index) in [(Names::starting_at(from), 250), (Names::after(from), 251)] {
            while names.read_some(&directory, 0).unwrap() {}
            assert_eq!(names.next(), Some(expected[index].as_bytes()));
        }
    }
}
