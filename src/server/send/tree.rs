//! A tree from its top down: each entry with its META, and its DATA, and its END; the END of a
//! directory behind those of its entries.
//!
//! However deep it is, a level takes a descriptor and no stack; however many entries its directories have,
//! their names take no more memory than [`Names`] and [`Walk::MOST_NAMES`] allow.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::file::Unverified;
use super::names::Names;
use super::packed::{NO_BYTES, Pending, pack_end, pack_failure};
use super::transfer::{PATIENCE, Progress, SendFailure, Source, unreadable};
use super::tree_file::Content;
use crate::server::resolve::{PathFd, entry, meta};
use crate::wire::{Entry, Kind, Meta, Start};

/// Sends a tree.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    top: Top,
    meta: Meta,
    start: Start<'a>,
    state: State,
    levels: Vec<Level>,
    most_levels: usize,
    pending: Pending,
}

/// What was asked for, opened before the child was sealed.
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
    Verifying(Half),
    InFile(Content),
}

/// A file whose beginning somebody has.
#[derive(Debug)]
struct Half {
    file: File,
    name: Vec<u8>,
    bytes: u64,
    unverified: Unverified,
}

/// A directory that was entered.
#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    names: Names,
}

impl<'a> Walk<'a> {
    /// Descriptors for all else that a child does.
    const RESERVE: u64 = 64;

    /// How many bytes of names to keep, about, of all directories that it is in.
    const MOST_NAMES: usize = 16 << 20;

    /// The least room worth a packed DATA.
    const WORTHWHILE: usize = 512;

    pub(crate) fn open(found: PathFd, start: Start<'a>) -> Result<Self, Errno> {
        let meta = meta(&found.stat, 0, None);
        let top = match found.kind() {
            Kind::Directory => Top::Directory { directory: found.open_directory()?, found },
            Kind::Regular => Top::File { file: Some(found.open_file()?) },
            _ => Top::Other { found },
        };
        let (levels, most_levels, pending) = (Vec::new(), levels_allowed(), Pending::default());
        Ok(Self { top, meta, start, state: State::New, levels, most_levels, pending })
    }

    /// The directory below which this goes on opening, if it is one.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        match &self.top {
            Top::Directory { directory, .. } => Some(directory.as_fd()),
            _ => None,
        }
    }

    /// Does the next thing; false if nothing is left to be done.
    fn step(&mut self) -> Result<bool, Errno> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::New => self.begin()?,
            State::Between => return Ok(self.next_entry()),
            State::Verifying(mut half) => match half.unverified.read(&mut half.file) {
                Ok(None) => self.state = State::Verifying(half),
                same => {
                    // Another one is begun anew, and so is one that cannot be read: that will show.
                    let offset = if matches!(same, Ok(Some(true))) { half.bytes } else { 0 };
                    self.pack_file(&half.name, Content::new(half.file, offset), offset);
                }
            },
            State::InFile(content) => self.state = State::InFile(content),
        }
        Ok(true)
    }

    fn begin(&mut self) -> Result<(), Errno> {
        match &mut self.top {
            Top::Directory { directory, .. } if !self.start.path.is_empty() => {
                let directory = directory.as_fd().try_clone_to_owned();
                let directory = directory.map_err(|_| Errno::EMFILE)?;
                self.go_on(directory)?;
            }
            Top::Directory { found, directory } => {
                entry(&found.stat, self.meta, b"", b"").append(self.pending.add());
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
                entry(&found.stat, self.meta, b"", &target).append(self.pending.add());
                pack_end(self.pending.add(), &NO_BYTES);
            }
        }
        Ok(())
    }

    /// Enters the directories again that were entered before. What cannot be entered any more, and what
    /// was below it, ends here.
    fn go_on(&mut self, top: OwnedFd) -> Result<(), Errno> {
        let (entered, name) = self.start.parts();
        let depth = entered.clone().count();
        let mut directory = top;
        for (i, next) in entered.enumerate() {
            match PathFd::below(&directory, next).and_then(|found| found.open_directory()) {
                Ok(below) => {
                    self.levels.push(Level { directory, names: Names::behind(next) });
                    directory = below;
                }
                Err(errno) => {
                    (i + 1..depth).for_each(|_| pack_end(self.pending.add(), &NO_BYTES));
                    pack_failure(self.pending.add(), "it went while the server was away", errno);
                    self.levels.push(Level { directory, names: Names::behind(next) });
                    self.start.arrived = None;
                    return Ok(());
                }
            }
        }
        let names = match self.start.arrived {
            Some(_) => Names::beginning_with(name),
            None => Names::behind(name),
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
                pack_failure(self.pending.add(), errno.desc(), errno);
                return true;
            }
        }
        let Some(name) = level.names.next() else {
            if !level.names.go_on() {
                self.levels.pop();
                pack_end(self.pending.add(), &NO_BYTES);
            }
            return true;
        };
        let name = name.to_vec();
        match PathFd::below(&level.directory, &name) {
            Ok(found) => self.pack_entry(found, name),
            // One that went since its name was read was never there.
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                Entry::unknown(&name).append(self.pending.add());
                pack_failure(self.pending.add(), errno.desc(), errno);
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
                    entry(&found.stat, meta, &name, b"").append(self.pending.add());
                    pack_failure(self.pending.add(), errno.desc(), errno);
                }
            },
            Kind::Directory => {
                entry(&found.stat, meta, &name, b"").append(self.pending.add());
                match self.enter(&found) {
                    Ok(()) => {}
                    Err(errno) => pack_failure(self.pending.add(), errno.desc(), errno),
                }
            }
            _ => {
                let target = found.target();
                let known = target.as_deref().unwrap_or_default();
                entry(&found.stat, meta, &name, known).append(self.pending.add());
                match target {
                    Ok(_) => pack_end(self.pending.add(), &NO_BYTES),
                    Err(errno) => pack_failure(self.pending.add(), errno.desc(), errno),
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
        // Of those that it comes back to last.
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
                let unverified = Unverified::new(bytes, checksum);
                self.state = State::Verifying(Half { file, name, bytes, unverified });
            }
            None => self.pack_file(&name, Content::new(file, 0), 0),
        }
    }

    fn pack_file(&mut self, name: &[u8], content: Result<Content, Errno>, offset: u64) {
        let out = self.pending.add();
        match content {
            Ok(content) => {
                let meta = meta(content.stat(), offset, content.left());
                entry(content.stat(), meta, name, b"").append(out);
                self.state = State::InFile(content);
            }
            Err(errno) => {
                Entry::unknown(name).append(out);
                pack_failure(out, errno.desc(), errno);
            }
        }
    }

    /// Packs bytes of the file that it is in, and says how much of the room they take.
    fn fill_from_file(&mut self, room: &mut [u8]) -> usize {
        let State::InFile(content) = &mut self.state else { return 0 };
        let packed = if room.len() < Self::WORTHWHILE {
            // The way round, for a queue with hardly any room.
            let mut bytes = [0; Self::WORTHWHILE];
            let mut end = Vec::new();
            let packed = content.pack(&mut bytes, &mut end);
            let out = self.pending.add();
            out.extend_from_slice(&bytes[..packed.unwrap_or(0)]);
            out.extend_from_slice(&end);
            packed.map(|_| 0)
        } else {
            content.pack(room, self.pending.add())
        };
        if packed.is_none() {
            self.state = State::Between;
        }
        packed.unwrap_or(0)
    }
}

impl Source for Walk<'_> {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn fill(&mut self, room: &mut [u8]) -> Result<Progress, SendFailure> {
        let (begin, mut filled) = (Instant::now(), 0);
        loop {
            filled += self.pending.take(&mut room[filled..]);
            let is_late = begin.elapsed() > PATIENCE;
            let left = room.len() - filled;
            // What little room is left is not worth a DATA of its own.
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
                filled += self.fill_from_file(&mut room[filled..]);
            } else if !self.step().map_err(|errno| unreadable(errno.into()))? {
                let ended = Progress::Ended;
                return Ok(if filled > 0 { Progress::Bytes(filled) } else { ended });
            }
        }
    }
}

/// How many directories this process may have entered at once: as many as it can be given descriptors.
fn levels_allowed() -> usize {
    let descriptors =
        getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, hard)| {
            match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                Ok(()) => hard,
                Err(_) => soft,
            }
        });
    usize::try_from(descriptors.saturating_sub(Walk::RESERVE)).unwrap_or(usize::MAX)
}
