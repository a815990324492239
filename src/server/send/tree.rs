//! Sends a tree from the top down: the META, DATA and END of each entry. The END of a directory
//! comes after its entries.
//!
//! Each level of directories takes a descriptor and no stack. The names of all levels together take
//! no more memory than [`Names`] and [`TreeWalk::MOST_NAMES`] allow.

use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::failure::Unanswerable;
use super::file::Verification;
use super::file_meta::{entry, meta};
use super::names::Names;
use super::packed::{NO_BYTES, Pending, pack_end, pack_failure};
use super::source::{MAX_WORK, Progress, Source};
use super::tree_file::TreeFile;
use crate::server::resolve::PathFd;
use crate::sys::errno_of;
use crate::wire::{Entry, Kind, Meta, Start};

/// A walk through a tree.
#[derive(Debug)]
pub(crate) struct TreeWalk<'a> {
    top: Top,
    meta: Meta,
    start: Start<'a>,
    state: State,
    levels: Vec<Level>,
    most_levels: usize,
    pending: Pending,
}

/// The file that the request names, opened before the child is sealed.
#[derive(Debug)]
enum Top {
    Directory { found: PathFd, directory: OwnedFd },
    File { file: Option<File> },
    Other { found: PathFd },
}

#[derive(Debug)]
enum State {
    New,
    /// Between two entries.
    Between,
    Verifying(PartialFile),
    InFile(TreeFile),
}

/// A file of which the client already has the beginning.
#[derive(Debug)]
struct PartialFile {
    file: File,
    name: Vec<u8>,
    bytes: u64,
    verification: Verification,
}

/// A directory that the walk is in.
#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    names: Names,
}

impl<'a> TreeWalk<'a> {
    /// Descriptors that the rest of the child needs.
    const RESERVE: u64 = 64;

    /// About how many bytes of names to keep, of all levels together.
    const MOST_NAMES: usize = 16 << 20;

    /// The smallest space that is worth a packed DATA.
    const WORTHWHILE: usize = 512;

    pub(super) fn open(found: PathFd, start: Start<'a>) -> Result<Self, Errno> {
        let meta = meta(&found.stat, 0, None);
        let top = match found.kind() {
            Kind::Directory => Top::Directory { directory: found.open_directory()?, found },
            Kind::Regular => Top::File { file: Some(found.open_file()?) },
            _ => Top::Other { found },
        };
        let (levels, most_levels, pending) = (Vec::new(), levels_allowed(), Pending::default());
        Ok(Self { top, meta, start, state: State::New, levels, most_levels, pending })
    }

    /// The directory below which the walk opens files.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        match &self.top {
            Top::Directory { directory, .. } => Some(directory.as_fd()),
            _ => None,
        }
    }

    /// Takes the next step. False: the walk has ended.
    fn step(&mut self) -> Result<bool, Errno> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::New => self.begin()?,
            State::Between => return Ok(self.next_entry()),
            State::Verifying(mut part) => match part.verification.read(&mut part.file) {
                Ok(None) => self.state = State::Verifying(part),
                Ok(Some(true)) => {
                    self.pack_file(&part.name, TreeFile::new(part.file, part.bytes));
                }
                // It differs or cannot be read, so it starts again.
                Ok(Some(false)) | Err(_) => {
                    let rewound = part.file.rewind().map_err(|error| errno_of(&error));
                    let file = rewound.and_then(|()| TreeFile::new(part.file, 0));
                    self.pack_file(&part.name, file);
                }
            },
            State::InFile(file) => self.state = State::InFile(file),
        }
        Ok(true)
    }

    fn begin(&mut self) -> Result<(), Errno> {
        match &mut self.top {
            Top::Directory { directory, .. } if !self.start.path.is_empty() => {
                let directory = directory.as_fd().try_clone_to_owned();
                let directory = directory.map_err(|_| Errno::EMFILE)?;
                self.reenter(directory)?;
            }
            Top::Directory { found, directory } => {
                entry(&found.stat, self.meta, b"", b"").append(self.pending.buffer());
                let directory = directory.as_fd().try_clone_to_owned();
                let directory = directory.map_err(|_| Errno::EMFILE)?;
                self.levels.push(Level { directory, names: Names::all() });
            }
            Top::File { file } => {
                let file = file.take().ok_or(Errno::EBADF)?;
                self.begin_file(file, Vec::new(), self.start.arrived);
            }
            Top::Other { found } => {
                let target = found.target()?;
                entry(&found.stat, self.meta, b"", &target).append(self.pending.buffer());
                pack_end(self.pending.buffer(), &NO_BYTES);
            }
        }
        Ok(())
    }

    /// Enters again the directories that an interrupted walk was in. If one cannot be entered any
    /// more, it and the directories below it end here.
    fn reenter(&mut self, top: OwnedFd) -> Result<(), Errno> {
        let (entered, name) = self.start.parts();
        let depth = entered.clone().count();
        let mut directory = top;
        for (i, next) in entered.enumerate() {
            match PathFd::below(&directory, next).and_then(|found| found.open_directory()) {
                Ok(below) => {
                    self.levels.push(Level { directory, names: Names::after(next) });
                    directory = below;
                }
                Err(errno) => {
                    (i + 1..depth).for_each(|_| pack_end(self.pending.buffer(), &NO_BYTES));
                    pack_failure(
                        self.pending.buffer(),
                        "it disappeared while the server was away",
                        errno,
                    );
                    self.levels.push(Level { directory, names: Names::after(next) });
                    self.start.arrived = None;
                    return Ok(());
                }
            }
        }
        let names = match self.start.arrived {
            Some(_) => Names::starting_at(name),
            None => Names::after(name),
        };
        self.levels.push(Level { directory, names });
        Ok(())
    }

    fn next_entry(&mut self) -> bool {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return false };
        match level.names.read_some(&level.directory, depth - 1) {
            Ok(false) => {}
            Ok(true) => return true,
            Err(errno) => {
                self.levels.pop();
                pack_failure(self.pending.buffer(), errno.desc(), errno);
                return true;
            }
        }
        let Some(name) = level.names.next() else {
            if !level.names.next_batch() {
                self.levels.pop();
                pack_end(self.pending.buffer(), &NO_BYTES);
            }
            return true;
        };
        let name = name.to_vec();
        match PathFd::below(&level.directory, &name) {
            Ok(found) => self.pack_entry(found, name),
            // Removed since its name was read.
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                Entry::unknown(&name).append(self.pending.buffer());
                pack_failure(self.pending.buffer(), errno.desc(), errno);
            }
        }
        true
    }

    fn pack_entry(&mut self, found: PathFd, name: Vec<u8>) {
        let arrived = self.start.arrived.take().filter(|_| self.start.parts().1 == name);
        let meta = meta(&found.stat, 0, None);
        match found.kind() {
            Kind::Regular => match found.open_file() {
                Ok(file) => self.begin_file(file, name, arrived),
                Err(errno) => {
                    entry(&found.stat, meta, &name, b"").append(self.pending.buffer());
                    pack_failure(self.pending.buffer(), errno.desc(), errno);
                }
            },
            Kind::Directory => {
                entry(&found.stat, meta, &name, b"").append(self.pending.buffer());
                match self.enter(&found) {
                    Ok(()) => {}
                    Err(errno) => pack_failure(self.pending.buffer(), errno.desc(), errno),
                }
            }
            _ => {
                let target = found.target();
                let known = target.as_deref().unwrap_or_default();
                entry(&found.stat, meta, &name, known).append(self.pending.buffer());
                match target {
                    Ok(_) => pack_end(self.pending.buffer(), &NO_BYTES),
                    Err(errno) => pack_failure(self.pending.buffer(), errno.desc(), errno),
                }
            }
        }
    }

    fn enter(&mut self, found: &PathFd) -> Result<(), Errno> {
        if self.levels.len() >= self.most_levels {
            return Err(Errno::EMFILE);
        }
        let directory = found.open_directory()?;
        let mut kept: usize = self.levels.iter().map(|level| level.names.size()).sum();
        // Evict names of the outermost levels first; they are needed last.
        for level in &mut self.levels {
            if kept <= Self::MOST_NAMES {
                break;
            }
            kept -= level.names.size();
            level.names.forget();
        }
        self.levels.push(Level { directory, names: Names::all() });
        Ok(())
    }

    fn begin_file(&mut self, file: File, name: Vec<u8>, arrived: Option<(u64, u32)>) {
        match arrived {
            Some((bytes, checksum)) => {
                let verification = Verification::new(bytes, checksum);
                self.state = State::Verifying(PartialFile { file, name, bytes, verification });
            }
            None => self.pack_file(&name, TreeFile::new(file, 0)),
        }
    }

    fn pack_file(&mut self, name: &[u8], file: Result<TreeFile, Errno>) {
        let out = self.pending.buffer();
        match file {
            Ok(file) => {
                file.entry(name).append(out);
                self.state = State::InFile(file);
            }
            Err(errno) => {
                Entry::unknown(name).append(out);
                pack_failure(out, errno.desc(), errno);
            }
        }
    }

    /// Packs the next bytes of the file, and returns how much of the buffer they take.
    fn fill_from_file(&mut self, buffer: &mut [u8]) -> usize {
        let State::InFile(file) = &mut self.state else { return 0 };
        let packed = if buffer.len() < Self::WORTHWHILE {
            // The queue is tiny: pack elsewhere, and send it in pieces.
            let mut bytes = [0; Self::WORTHWHILE];
            let mut end = Vec::new();
            let packed = file.pack(&mut bytes, &mut end);
            let out = self.pending.buffer();
            out.extend_from_slice(&bytes[..packed.unwrap_or(0)]);
            out.extend_from_slice(&end);
            packed.map(|_| 0)
        } else {
            file.pack(buffer, self.pending.buffer())
        };
        if packed.is_none() {
            self.state = State::Between;
        }
        packed.unwrap_or(0)
    }
}

impl Source for TreeWalk<'_> {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable> {
        let (begin, mut filled) = (Instant::now(), 0);
        loop {
            filled += self.pending.take(&mut buffer[filled..]);
            let is_late = begin.elapsed() > MAX_WORK;
            let left = buffer.len() - filled;
            // A small rest is not worth a packed DATA.
            let is_full = left == 0
                || (filled > 0
                    && left < Self::WORTHWHILE
                    && matches!(self.state, State::InFile(_)));
            if is_full || (filled > 0 && is_late) {
                return Ok(Progress::Bytes(filled));
            }
            if is_late {
                return Ok(Progress::Working);
            }
            if matches!(self.state, State::InFile(_)) {
                filled += self.fill_from_file(&mut buffer[filled..]);
            } else if !self.step().map_err(Unanswerable::read)? {
                let ended = Progress::Ended;
                return Ok(if filled > 0 { Progress::Bytes(filled) } else { ended });
            }
        }
    }
}

/// How many levels a walk may have, each of which takes a descriptor. Raises the limit of this
/// process to the hard one.
fn levels_allowed() -> usize {
    let descriptors =
        getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, hard)| {
            match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                Ok(()) => hard,
                Err(_) => soft,
            }
        });
    usize::try_from(descriptors.saturating_sub(TreeWalk::RESERVE)).unwrap_or(usize::MAX)
}
