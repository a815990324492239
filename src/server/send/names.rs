//! The names in a directory in their order, in no more memory than a fixed amount, however many there
//! are; read a few at a time, since a directory may take longer than a client waits for a sign of life.

use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::sys::errno_of;

/// Names of a directory, sorted by their bytes: all, or as many of the first as the budget allows.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The names one behind the other, in the order in which they were read.
    bytes: Vec<u8>,
    /// Where each is, and how long, in their order.
    places: Vec<(u32, u16)>,
    next: usize,
    /// Whether there are others behind these.
    more: bool,
    /// What comes before this name is left out, and that one too unless it is `with_from`.
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
    /// The last of the names that are kept, since there are too many.
    last: Option<Vec<u8>>,
}

impl Names {
    /// How many bytes of names to keep, about, at the top. 100,000 of 20 bytes take a third of it.
    const BUDGET: usize = 8 << 20;

    /// What a name takes beside its bytes.
    const PLACE: usize = size_of::<(u32, u16)>();

    /// How many are read at once.
    const AT_ONCE: usize = 1024;

    /// All names.
    pub(crate) fn all() -> Self {
        Self::default()
    }

    /// The names behind one.
    pub(crate) fn behind(name: &[u8]) -> Self {
        Self { from: name.to_vec(), ..Self::default() }
    }

    /// A name and those behind it.
    pub(crate) fn beginning_with(name: &[u8]) -> Self {
        Self { from: name.to_vec(), with_from: true, ..Self::default() }
    }

    /// Reads some of them; false once there are names to be [taken](Self::next), or none. The fewer are
    /// kept, the more directories are open above this one.
    pub(crate) fn read_some(&mut self, directory: &OwnedFd, depth: usize) -> Result<bool, Errno> {
        self.read_within(Self::BUDGET >> depth.min(4), directory)
    }

    fn read_within(&mut self, budget: usize, directory: &OwnedFd) -> Result<bool, Errno> {
        let mut scan = match std::mem::take(&mut self.state) {
            State::Unread => {
                // Both descriptors have one place to read at.
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
            self.take_up(entry?.file_name().to_bytes(), scan.last.as_deref());
            if self.size() > 2 * budget {
                scan.last = Some(self.keep_first(budget));
            }
        }
        self.state = State::Reading(scan);
        Ok(true)
    }

    fn take_up(&mut self, name: &[u8], last: Option<&[u8]>) {
        let from = &self.from[..];
        let is_before = if self.with_from { name < from } else { name <= from };
        let is_behind = last.is_some_and(|last| name > last);
        self.more |= is_behind;
        if !matches!(name, b"." | b"..") && !is_before && !is_behind {
            self.add(name);
        }
    }

    fn add(&mut self, name: &[u8]) {
        self.places.push((self.bytes.len() as u32, name.len() as u16));
        self.bytes.extend_from_slice(name);
    }

    /// How many bytes they take, about.
    pub(crate) fn size(&self) -> usize {
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

    /// Takes the next name.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let place = *self.places.get(self.next)?;
        self.next += 1;
        Some(at(&self.bytes, place))
    }

    /// Once all that were kept were taken: whether there are others, to be read now.
    pub(crate) fn go_on(&mut self) -> bool {
        let more = self.more;
        if more {
            self.forget();
        }
        more
    }

    /// Forgets all that were not taken, to be read again.
    pub(crate) fn forget(&mut self) {
        *self = match self.next.checked_sub(1) {
            Some(taken) => Self::behind(at(&self.bytes, self.places[taken])),
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
        for (budget, forgetful) in
            [1, 50, 1000, 1 << 20].map(|budget| [(budget, false), (budget, true)]).concat()
        {
            let (mut names, mut found) = (Names::all(), Vec::new());
            loop {
                while names.read_within(budget, &directory).unwrap() {}
                assert!(names.size() <= 2 * budget + 64, "{budget}");
                while let Some(name) = names.next() {
                    found.push(String::from_utf8(name.to_vec()).unwrap());
                    if forgetful && found.len() % 7 == 0 {
                        names.forget();
                        while names.read_within(budget, &directory).unwrap() {}
                    }
                }
                if !names.go_on() {
                    break;
                }
            }
            assert_eq!(found, expected, "{budget}");
        }
        let from = expected[250].as_bytes();
        for (mut names, index) in [(Names::beginning_with(from), 250), (Names::behind(from), 251)] {
            while names.read_some(&directory, 0).unwrap() {}
            assert_eq!(names.next(), Some(expected[index].as_bytes()));
        }
    }
}
