//! Sends a regular file, or a part of it.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::failure::Unanswerable;
use super::file_meta::{differ, meta};
use super::source::{Progress, Source, at_most};
use crate::sys::errno_of;
use crate::wire::{Arrived, Meta, Range};

/// A regular file, opened with the caller's rights, and the part of it to send.
///
/// If the client resumes a transfer, the part that it already has is verified first: the END of
/// this transfer covers only the rest. An unchanged mtime would not prove that part unchanged,
/// since two writes within a tick of the clock, or a write through mmap, may leave it as it was.
#[derive(Debug)]
pub(super) struct OpenedFile {
    file: File,
    stat: FileStat,
    offset: u64,
    /// How many bytes are left to send. None: the size is unknown, so it is read to its end.
    left: Option<u64>,
    unverified: Option<Unverified>,
}

/// The part of a file that the client already has.
#[derive(Debug)]
struct Unverified {
    left: u64,
    wanted: u32,
    checksum: crc32fast::Hasher,
}

impl OpenedFile {
    /// How many bytes to verify at once.
    const PIECE: usize = 256 << 10;

    pub(super) fn new(
        mut file: File,
        Range { offset, length }: Range,
        arrived: Option<Arrived>,
    ) -> Result<Self, Errno> {
        let stat = fstat(&file)?;
        let left = match u64::try_from(stat.st_size).unwrap_or(0) {
            // Empty, or a file of /proc, whose size is not known before it is read.
            0 => length,
            size => {
                let rest = size.saturating_sub(offset);
                Some(length.map_or(rest, |length| length.min(rest)))
            }
        };
        let start = arrived.map_or(offset, |arrived| arrived.start);
        if start > 0 && (arrived.is_some() || left != Some(0)) {
            file.seek(SeekFrom::Start(start)).map_err(|error| errno_of(&error))?;
        }
        let unverified = arrived.map(|Arrived { start, checksum: wanted }| Unverified {
            left: offset - start,
            wanted,
            checksum: crc32fast::Hasher::new(),
        });
        Ok(Self { file, stat, offset, left, unverified })
    }

    /// Sends all of the file instead.
    pub(super) fn restart(mut self) -> Result<Self, Errno> {
        self.file.rewind().map_err(|error| errno_of(&error))?;
        Self::new(self.file, Range::WHOLE, None)
    }

    pub(super) fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Verifies a piece of the part that the client already has. False: nothing was left.
    pub(super) fn verify(&mut self) -> Result<bool, Unanswerable> {
        let Some(part) = &mut self.unverified else { return Ok(false) };
        let mut bytes = vec![0; at_most(Some(part.left), Self::PIECE)];
        let read = read_some(&mut self.file, &mut bytes)?;
        part.checksum.update(&bytes[..read]);
        part.left -= read as u64;
        if part.left == 0 && part.checksum.clone().finalize() == part.wanted {
            self.unverified = None;
        } else if part.left == 0 || read == 0 {
            let text = "the file changed since its beginning arrived";
            return Err(Unanswerable::new(text, Errno::ESTALE));
        }
        Ok(true)
    }
}

impl Source for OpenedFile {
    fn meta(&self) -> Meta {
        let length = if self.stat.st_size == 0 { None } else { self.left };
        meta(&self.stat, self.offset, length)
    }

    fn length(&self) -> Option<u64> {
        self.left
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable> {
        if self.verify()? {
            return Ok(Progress::Working);
        }
        let most = at_most(self.left, buffer.len());
        if most == 0 {
            return Ok(Progress::Ended);
        }
        match read_some(&mut self.file, &mut buffer[..most])? {
            0 => Ok(Progress::Ended),
            read => {
                self.left = self.left.map(|left| left - read as u64);
                Ok(Progress::Bytes(read))
            }
        }
    }

    fn has_changed(&mut self) -> Result<bool, Unanswerable> {
        let now = fstat(&self.file).map_err(Unanswerable::read)?;
        let changed = differ(&self.stat, &now);
        // A file that ends early and did not change had no true size before, as in /sys.
        if self.left.is_some_and(|left| left > 0) && changed {
            return Err(Unanswerable::new("the file shrank while it was read", Errno::EIO));
        }
        Ok(changed)
    }
}

/// Reads some bytes; 0 is the end of the file.
fn read_some(file: &mut File, buffer: &mut [u8]) -> Result<usize, Unanswerable> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome.map_err(|error| Unanswerable::read(errno_of(&error))),
        }
    }
}
