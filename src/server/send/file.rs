//! Sends a regular file, or a part of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops;

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::unistd::{Whence, lseek};
use sysv_ipc::Attached;

use super::failure::Unanswerable;
use super::source::{Source, at_most};
use crate::server::resolve::PathFd;
use crate::sys::{errno_of, fstat};
use crate::wire::{Extent, Range};

pub(super) struct OpenedFile {
    file: File,
    /// What the file was before it was opened.
    found: PathFd,
    /// How many bytes are left before the next hole. None: it is read to its end.
    left: Option<u64>,
    /// The extents behind those bytes, and how many bytes behind them were not searched for holes.
    extents: VecDeque<Extent>,
    unsearched: u64,
    /// Where the extents begin; 0 if holes are not left out.
    position: u64,
}

impl OpenedFile {
    /// This many bytes or fewer go through the queue.
    const SMALL: u64 = 16 << 10;

    pub(super) fn new(
        mut file: File,
        found: PathFd,
        Range { offset, length }: Range,
        leaves_out_holes: bool,
    ) -> Result<Self, Errno> {
        let (size, blocks) =
            (found.stat.st_size.cast_unsigned(), found.stat.st_blocks.cast_unsigned());
        let left = match size {
            // Empty, or a file of /proc, whose size is not known before it is read.
            0 => length,
            size => {
                let rest = size.saturating_sub(offset);
                Some(length.map_or(rest, |length| length.min(rest)))
            }
        };
        // Any other file has no hole, or not one that is worth further system calls.
        let (left, unsearched, position) = match left {
            Some(left @ 1..) if leaves_out_holes && blocks.saturating_mul(512) < size => {
                (Some(0), left, offset)
            }
            left => (left, 0, 0),
        };
        if offset > 0 && left != Some(0) {
            file.seek(SeekFrom::Start(offset)).map_err(|error| errno_of(&error))?;
        }
        Ok(Self { file, found, left, extents: VecDeque::new(), unsearched, position })
    }

    /// How many bytes will be sent, with holes.
    pub(super) fn announced(&self) -> Option<u64> {
        self.left.map(|left| left + self.unsearched)
    }

    /// Searches for holes. A file system without holes reports only data, or fails.
    fn search(&mut self) {
        let end = self.position + self.unsearched;
        let seek = |from: u64, whence| match lseek(&self.file, from.cast_signed(), whence) {
            Ok(found) => Some(found.cast_unsigned().clamp(from, end)),
            Err(Errno::ENXIO) => Some(end), // nothing but a hole is left: lseek(2)
            Err(_) => None,
        };
        let mut at = self.position;
        while at < end && self.extents.len() < Extent::MOST {
            let data = seek(at, Whence::SeekData).unwrap_or(at);
            // Data that has become a hole meanwhile is read as zeros.
            let next = seek(data, Whence::SeekHole).filter(|&next| next > data).unwrap_or(end);
            self.extents.push_back(Extent { hole: data - at, data: next - data });
            at = next;
        }
        self.unsearched = end - at;
    }

    /// Reads some bytes, at most as many as this; 0 is the end of the file.
    fn read(
        &mut self,
        most: usize,
        mut read: impl FnMut(&File) -> io::Result<usize>,
    ) -> Result<usize, Unanswerable> {
        let count = loop {
            match if most == 0 { Ok(0) } else { read(&self.file) } {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Unanswerable::read(errno_of(&error))),
                Ok(count) => break count,
            }
        };
        self.left = self.left.map(|left| left - count as u64);
        Ok(count)
    }
}

impl Source for OpenedFile {
    fn left(&self) -> Option<u64> {
        self.left
    }

    fn new_extents(&mut self) -> &[Extent] {
        if self.left != Some(0) || !self.extents.is_empty() {
            return &[];
        }
        self.search();
        let has_hole = self.extents.iter().any(|extent| extent.hole > 0);
        if has_hole { self.extents.make_contiguous() } else { &[] }
    }

    fn skip_hole(&mut self) -> Result<u64, Unanswerable> {
        if self.left != Some(0) {
            return Ok(0);
        }
        let Some(Extent { hole, data }) = self.extents.pop_front() else { return Ok(0) };
        let seek = self.file.seek(SeekFrom::Start(self.position + hole));
        seek.map_err(|error| Unanswerable::read(errno_of(&error)))?;
        self.position += hole + data;
        self.left = Some(data);
        Ok(hole)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Unanswerable> {
        let most = at_most(self.left, buffer.len());
        self.read(most, |mut file| file.read(&mut buffer[..most]))
    }

    fn left_for_window(&self) -> Option<u64> {
        // A file of /proc gives few bytes at once, whatever the length that was asked for.
        self.left.filter(|&left| self.found.stat.st_size > 0 && left > Self::SMALL)
    }

    fn fill_shared(
        &mut self,
        memory: &Attached,
        range: ops::Range<usize>,
    ) -> Result<usize, Unanswerable> {
        let most = at_most(self.left, range.len());
        self.read(most, |file| memory.read_from(file, range.start..range.start + most))
    }

    fn has_changed(&self) -> Result<bool, Unanswerable> {
        let now = fstat(&self.file).map_err(Unanswerable::read)?;
        // Not by the ctime, which a rename, a link or a chmod changes too.
        let state = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        let changed = state(&self.found.stat) != state(&now);
        let is_short =
            self.left.is_some_and(|left| left > 0) || now.st_size.cast_unsigned() < self.position;
        // Another machine may shorten a file of a shared file system without a change that this
        // one sees in time. A file without blocks, as in /sys, never had a true size.
        let had_a_true_size = changed || self.found.stat.st_blocks > 0;
        if is_short && had_a_true_size {
            return Err(Unanswerable::new("the file shrank while it was read", Errno::EIO));
        }
        Ok(changed)
    }
}
