//! Sends a regular file, or a part of it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use sysv_ipc::Attached;

use super::failure::Unanswerable;
use super::source::{Source, at_most};
use crate::sys::errno_of;
use crate::wire::Range;

/// A regular file, opened with the caller's rights, and the part of it to send.
#[derive(Debug)]
pub(super) struct OpenedFile {
    file: File,
    /// What the file was before it was opened.
    stat: FileStat,
    /// How many bytes are left to send. None: the size is unknown, so it is read to its end.
    left: Option<u64>,
}

impl OpenedFile {
    /// This many bytes or fewer go through the queue.
    const SMALL: u64 = 16 << 10;

    pub(super) fn new(
        mut file: File,
        stat: FileStat,
        Range { offset, length }: Range,
    ) -> Result<Self, Errno> {
        let left = match u64::try_from(stat.st_size).unwrap_or(0) {
            // Empty, or a file of /proc, whose size is not known before it is read.
            0 => length,
            size => {
                let rest = size.saturating_sub(offset);
                Some(length.map_or(rest, |length| length.min(rest)))
            }
        };
        if offset > 0 && left != Some(0) {
            file.seek(SeekFrom::Start(offset)).map_err(|error| errno_of(&error))?;
        }
        Ok(Self { file, stat, left })
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

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Unanswerable> {
        let most = at_most(self.left, buffer.len());
        self.read(most, |mut file| file.read(&mut buffer[..most]))
    }

    fn left_for_window(&self) -> Option<u64> {
        // A file of /proc gives few bytes at once, whatever the length that was asked for.
        self.left.filter(|&left| self.stat.st_size > 0 && left > Self::SMALL)
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
        let changed = differ(&self.stat, &now);
        // Another machine may shorten a file of a shared file system without a change that this
        // one sees in time. A file without blocks, as in /sys, never had a true size.
        let had_a_true_size = changed || self.stat.st_blocks > 0;
        if self.left.is_some_and(|left| left > 0) && had_a_true_size {
            return Err(Unanswerable::new("the file shrank while it was read", Errno::EIO));
        }
        Ok(changed)
    }
}

/// Whether the content of a file changed between two looks. Not by its ctime, which a rename, a link
/// or a chmod changes too.
fn differ(before: &FileStat, now: &FileStat) -> bool {
    let state = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    state(before) != state(now)
}
