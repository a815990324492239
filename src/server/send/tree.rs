//! Sends a tree from the top down: the META, DATA and END of each entry. The END of a directory
//! comes after its entries.
//!
//! Each level of directories takes a descriptor and no stack. The names of all levels together take
//! no more memory than [`Names`] and [`TreeWalk::MOST_NAMES`] allow.

use std::ops::Bound;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::Poll;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::failure::Unanswerable;
use super::file::OpenedFile;
use super::file_meta::{entry, meta};
use super::names::Names;
use super::packed::{NO_BYTES, fill_in_steps, pack_end, pack_failure, pack_unknown, take};
use super::source::{Progress, Source};
use crate::server::resolve::PathFd;
use crate::wire::{Arrived, Kind, Meta, Packed, Range, Reply, Start, Trailer};

/// A walk through a tree.
#[derive(Debug)]
pub(super) struct TreeWalk {
    meta: Meta,
    /// The directories that the walk is in, from the top down.
    levels: Vec<Names>,
    most_levels: usize,
    state: State,
    /// The name of the entry of which the client already has the beginning, the number of its
    /// bytes, and their checksum.
    partial: Option<(Vec<u8>, (u64, u32))>,
    /// Packed messages that were not sent yet.
    pending: Vec<u8>,
}

#[derive(Debug)]
enum State {
    BetweenEntries,
    /// The client may already have the beginning of this file, which must be verified first.
    FileFound(OpenedFile, Vec<u8>),
    InFile(TreeFile),
}

/// A file that the walk is sending.
#[derive(Debug)]
struct TreeFile {
    file: OpenedFile,
    sent: u64,
    checksum: crc32fast::Hasher,
}

impl TreeWalk {
    /// Descriptors that the rest of the child needs.
    const RESERVE: u64 = 64;

    /// About how many bytes of names to keep, of all levels together.
    const MOST_NAMES: usize = 16 << 20;

    /// With less free space than this, packing a DATA is not worth it.
    const WORTHWHILE: usize = 512;

    pub(super) fn open(found: &PathFd, start: Start<'_>) -> Result<Self, Errno> {
        let mut walk = Self {
            meta: meta(&found.stat, 0, None),
            levels: Vec::new(),
            most_levels: levels_allowed(),
            state: State::BetweenEntries,
            partial: None,
            pending: Vec::new(),
        };
        match found.kind() {
            Kind::Regular => {
                walk.state = State::FileFound(open_file(found, start.arrived)?, Vec::new());
            }
            Kind::Directory => {
                let directory = found.open_directory()?;
                if start.path.is_empty() {
                    entry(&found.stat, walk.meta, b"", b"").append(&mut walk.pending);
                }
                walk.start_at(directory, start);
            }
            _ => {
                entry(&found.stat, walk.meta, b"", &found.target()?).append(&mut walk.pending);
                pack_end(&mut walk.pending, &NO_BYTES);
            }
        }
        Ok(walk)
    }

    /// Enters the directories that an interrupted walk was in, from the top down. If one cannot be
    /// entered any more, it and the directories below it end here.
    fn start_at(&mut self, top: OwnedFd, start: Start<'_>) {
        let (entered, name) = start.parts();
        let mut depth = entered.clone().count();
        let mut directory = top;
        for next in entered {
            let below = PathFd::below(&directory, next).and_then(|found| found.open_directory());
            self.levels.push(Names::new(directory, Bound::Excluded(next)));
            depth -= 1;
            match below {
                Ok(below) => directory = below,
                Err(errno) => {
                    (0..depth).for_each(|_| pack_end(&mut self.pending, &NO_BYTES));
                    let text = "it disappeared while the server was away";
                    return pack_failure(&mut self.pending, text, errno);
                }
            }
        }
        let from = match start.arrived {
            Some(_) => Bound::Included(name),
            None => Bound::Excluded(name),
        };
        self.levels.push(Names::new(directory, from));
        self.partial = start.arrived.map(|arrived| (name.to_vec(), arrived));
    }

    /// Takes the next step between entries. False: the walk has ended.
    fn next_entry(&mut self) -> bool {
        let Some(level) = self.levels.last_mut() else { return false };
        let name = match level.next() {
            Ok(Poll::Ready(Some(name))) => name,
            Ok(Poll::Pending) => return true,
            Ok(Poll::Ready(None)) => {
                self.levels.pop();
                pack_end(&mut self.pending, &NO_BYTES);
                return true;
            }
            Err(errno) => {
                self.levels.pop();
                pack_failure(&mut self.pending, errno.desc(), errno);
                return true;
            }
        };
        match PathFd::below(level.directory(), &name) {
            Ok(found) => self.pack_entry(&found, name),
            // Removed since its name was read.
            Err(Errno::ENOENT) => {}
            Err(errno) => pack_unknown(&mut self.pending, &name, errno),
        }
        true
    }

    fn pack_entry(&mut self, found: &PathFd, name: Vec<u8>) {
        let partial = self.partial.take().filter(|(partial, _)| *partial == name);
        let file = match found.kind() {
            Kind::Regular => match open_file(found, partial.map(|(_, arrived)| arrived)) {
                Ok(file) => return self.state = State::FileFound(file, name),
                Err(errno) => Err(errno),
            },
            _ => Ok(()),
        };
        let target = found.target();
        let known = target.as_deref().unwrap_or_default();
        entry(&found.stat, meta(&found.stat, 0, None), &name, known).append(&mut self.pending);
        let outcome = file.and_then(|()| match found.kind() {
            Kind::Directory => self.enter(found),
            _ => target.map(|_| pack_end(&mut self.pending, &NO_BYTES)),
        });
        if let Err(errno) = outcome {
            pack_failure(&mut self.pending, errno.desc(), errno);
        }
    }

    fn enter(&mut self, found: &PathFd) -> Result<(), Errno> {
        if self.levels.len() >= self.most_levels {
            return Err(Errno::EMFILE);
        }
        let directory = found.open_directory()?;
        let mut kept: usize = self.levels.iter().map(Names::size).sum();
        // Evict names of the outermost levels first; they are needed last.
        for level in &mut self.levels {
            if kept <= Self::MOST_NAMES {
                break;
            }
            kept -= level.size();
            level.forget();
        }
        self.levels.push(Names::new(directory, Bound::Excluded(b"")));
        Ok(())
    }

    fn verify(&mut self, mut file: OpenedFile, name: Vec<u8>) {
        let verified = match file.verify() {
            Ok(true) => return self.state = State::FileFound(file, name),
            Ok(false) => Ok(file),
            // The file differs or cannot be read, so it starts again.
            Err(_) => file.restart(),
        };
        match verified {
            Ok(file) => {
                entry(file.stat(), file.meta(), &name, b"").append(&mut self.pending);
                let checksum = crc32fast::Hasher::new();
                self.state = State::InFile(TreeFile { file, sent: 0, checksum });
            }
            Err(errno) => pack_unknown(&mut self.pending, &name, errno),
        }
    }

    /// Packs the next bytes of a file, and returns how much of the buffer they take.
    fn pack_file(&mut self, mut file: TreeFile, buffer: &mut [u8]) -> usize {
        let mut elsewhere = [0; Self::WORTHWHILE];
        let is_tight = buffer.len() < Self::WORTHWHILE;
        let space = if is_tight { &mut elsewhere } else { buffer };
        let Some(packed) = file.pack(space, &mut self.pending) else { return 0 };
        self.state = State::InFile(file);
        if is_tight {
            self.pending.extend_from_slice(&elsewhere[..packed]);
            return 0;
        }
        packed
    }
}

impl TreeFile {
    /// Packs the next bytes into the buffer, and returns how much of it they take. At the end of
    /// the file, packs its END or FAILURE into `end` instead, and returns None.
    fn pack(&mut self, buffer: &mut [u8], end: &mut Vec<u8>) -> Option<usize> {
        let (header, text) = buffer.split_at_mut(Packed::SIZE);
        let changed = match self.file.fill(text) {
            Ok(Progress::Bytes(read)) => {
                self.checksum.update(&text[..read]);
                self.sent += read as u64;
                let packed = Packed { length: read as u32, mtype: Reply::DATA };
                header.copy_from_slice(&packed.encode());
                return Some(Packed::SIZE + read);
            }
            Ok(Progress::Working) => return Some(0),
            Ok(Progress::Ended) => self.file.has_changed(),
            Err(failure) => Err(failure),
        };
        match changed {
            Ok(changed) => {
                let checksum = self.checksum.clone().finalize();
                pack_end(end, &Trailer { bytes: self.sent, checksum, changed });
            }
            Err(failure) => pack_failure(end, &failure.text, failure.errno),
        }
        None
    }
}

impl Source for TreeWalk {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn tree(&self) -> Option<BorrowedFd<'_>> {
        self.levels.first().map(Names::directory)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable> {
        fill_in_steps(buffer, |rest| {
            if self.pending.is_empty() {
                match std::mem::replace(&mut self.state, State::BetweenEntries) {
                    State::BetweenEntries if !self.next_entry() => return Ok(None),
                    State::BetweenEntries => {}
                    State::FileFound(file, name) => self.verify(file, name),
                    State::InFile(file) => return Ok(Some(self.pack_file(file, rest))),
                }
            }
            Ok(Some(take(&mut self.pending, rest)))
        })
    }
}

/// Opens a file. The client may already have this many bytes of it, with this checksum.
fn open_file(found: &PathFd, arrived: Option<(u64, u32)>) -> Result<OpenedFile, Errno> {
    let offset = arrived.map_or(0, |(bytes, _)| bytes);
    let arrived = arrived.map(|(_, checksum)| Arrived { start: 0, checksum });
    OpenedFile::new(found.open_file()?, Range { offset, length: None }, arrived)
}

/// How many levels a walk may have, each of which takes a descriptor. Raises the limit of this
/// process to the hard one.
fn levels_allowed() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let descriptors = if raised { hard } else { soft };
    usize::try_from(descriptors.saturating_sub(TreeWalk::RESERVE)).unwrap_or(usize::MAX)
}
