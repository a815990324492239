//! The names in a directory in their order, in no more memory than a fixed amount, however many there
//! are.

use std::os::fd::{AsFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::process::errno_of;

/// Names of a directory, sorted by their bytes: all, or as many of the first as the budget allows.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names one behind the other, in the order in which they were read.
    bytes: Vec<u8>,
    /// Where each is, and how long, in their order.
    places: Vec<(u32, u16)>,
    next: usize,
    /// Whether there are others behind these.
    more: bool,
}

impl Names {
    /// How many bytes of names to keep, about, at the top. 100,000 of 20 bytes take a third of it.
    const BUDGET: usize = 8 << 20;

    /// What a name takes beside its bytes.
    const PLACE: usize = size_of::<(u32, u16)>();

    /// Reads the names behind a name, or that one, too; the fewer at once, the more directories are open
    /// above this one.
    pub(super) fn read(
        directory: &OwnedFd,
        from: &[u8],
        and_it: bool,
        depth: usize,
    ) -> Result<Self, Errno> {
        Self::read_within(Self::BUDGET >> depth.min(4), directory, from, and_it)
    }

    fn read_within(
        budget: usize,
        directory: &OwnedFd,
        from: &[u8],
        and_it: bool,
    ) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut last = None;
        // Both descriptors have one place to read at.
        lseek(directory, 0, Whence::SeekSet)?;
        let copy = directory.as_fd().try_clone_to_owned();
        let mut stream = Dir::from_fd(copy.map_err(|error| errno_of(&error))?)?;
        for entry in stream.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_before = if and_it { name < from } else { name <= from };
            let is_behind = last.as_ref().is_some_and(|last: &Vec<u8>| name > &last[..]);
            names.more |= is_behind;
            if !matches!(name, b"." | b"..") && !is_before && !is_behind {
                names.add(name);
            }
            if names.size() > 2 * budget {
                last = Some(names.keep_first(budget));
            }
        }
        names.sort();
        Ok(names)
    }

    fn add(&mut self, name: &[u8]) {
        self.places.push((self.bytes.len() as u32, name.len() as u16));
        self.bytes.extend_from_slice(name);
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.places.len() * Self::PLACE
    }

    /// In their order, each once: what is removed and made again meanwhile may be read twice,
    /// readdir(3).
    fn sort(&mut self) {
        let name = |&place: &(u32, u16)| at(&self.bytes, place);
        self.places.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        self.places.dedup_by(|one, other| name(one) == name(other));
    }

    /// Forgets all but the first, and gives the last of those.
    fn keep_first(&mut self, budget: usize) -> Vec<u8> {
        self.sort();
        let mut first = Self { more: true, ..Self::default() };
        for &place in &self.places {
            if first.size() > budget {
                break;
            }
            first.add(at(&self.bytes, place));
        }
        *self = first;
        self.places.last().map_or_else(Vec::new, |&last| at(&self.bytes, last).to_vec())
    }

    /// Takes the next name.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let place = *self.places.get(self.next)?;
        self.next += 1;
        Some(at(&self.bytes, place))
    }

    /// The last name, behind which there are others to be read; None if there are none.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        let last = self.places.last().filter(|_| self.more && self.next == self.places.len())?;
        Some(at(&self.bytes, *last))
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
        for budget in [1, 50, 1000, 1 << 20] {
            let mut names = Names::read_within(budget, &directory, b"", false).unwrap();
            let mut found = Vec::new();
            loop {
                while let Some(name) = names.next() {
                    found.push(String::from_utf8(name.to_vec()).unwrap());
                }
                let Some(last) = names.rest() else { break };
                assert!(names.size() <= 2 * budget + 64, "{budget}");
                names = Names::read_within(budget, &directory, last, false).unwrap();
            }
            assert_eq!(found, expected, "{budget}");
        }
        let from = expected[250].as_bytes();
        for (and_it, index) in [(true, 250), (false, 251)] {
            let mut names = Names::read(&directory, from, and_it, 0).unwrap();
            assert_eq!(names.next(), Some(expected[index].as_bytes()));
        }
    }
}
