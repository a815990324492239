//! Sends a regular file, or a part of it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

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
pub(crate) struct OpenedFile {
    file: File,
    stat: FileStat,
    range: Range,
    /// How many bytes are left to send. None: the size is unknown, so it is read to its end.
    left: Option<u64>,
    before: Before,
}

/// What is left to do before the first byte can be read.
#[derive(Debug)]
enum Before {
    Seek,
    Verify(Arrived),
    Verifying(Verification),
    Nothing,
}

/// Compares the checksum of a part of a file, a piece at a time.
#[derive(Debug)]
pub(super) struct Verification {
    left: u64,
    wanted: u32,
    checksum: crc32fast::Hasher,
}

impl Verification {
    /// How many bytes it reads at once.
    const PIECE: usize = 256 << 10;

    /// Verifies this many bytes, from the file's current position on.
    pub(super) fn new(bytes: u64, wanted: u32) -> Self {
        Self { left: bytes, wanted, checksum: crc32fast::Hasher::new() }
    }

    /// Reads the next piece. None: there is more to read. Otherwise: whether the checksum matches.
    pub(super) fn read(&mut self, file: &mut File) -> io::Result<Option<bool>> {
        let mut bytes = vec![0; at_most(Some(self.left), Self::PIECE)];
        let read = read_some(file, &mut bytes)?;
        self.checksum.update(&bytes[..read]);
        self.left -= read as u64;
        if self.left > 0 && read > 0 {
            return Ok(None);
        }
        Ok(Some(self.left == 0 && self.checksum.clone().finalize() == self.wanted))
    }
}

impl OpenedFile {
    pub(super) fn new(file: File, range: Range, arrived: Option<Arrived>) -> Result<Self, Errno> {
        let stat = fstat(&file)?;
        let left = match u64::try_from(stat.st_size).unwrap_or(0) {
            // Empty, or a file of /proc, whose size is not known before it is read.
            0 => range.length,
            size => {
                let rest = size.saturating_sub(range.offset);
                Some(range.length.map_or(rest, |length| length.min(rest)))
            }
        };
        let before = match arrived {
            Some(arrived) => Before::Verify(arrived),
            None if range.offset > 0 && left != Some(0) => Before::Seek,
            None => Before::Nothing,
        };
        Ok(Self { file, stat, range, left, before })
    }

    pub(super) fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Does one thing that is left to do before the first byte. False: nothing was left.
    fn prepare(&mut self) -> Result<bool, Unanswerable> {
        match &mut self.before {
            Before::Nothing => return Ok(false),
            Before::Seek => {
                self.file.seek(SeekFrom::Start(self.range.offset)).map_err(read_failed)?;
                self.before = Before::Nothing;
            }
            Before::Verify(Arrived { start, checksum }) => {
                self.file.seek(SeekFrom::Start(*start)).map_err(read_failed)?;
                let bytes = self.range.offset - *start;
                self.before = Before::Verifying(Verification::new(bytes, *checksum));
            }
            Before::Verifying(verification) => {
                match verification.read(&mut self.file).map_err(read_failed)? {
                    None => {}
                    Some(true) => self.before = Before::Nothing,
                    Some(false) => {
                        let text = "the file changed since its beginning arrived";
                        return Err(Unanswerable::new(text, Errno::ESTALE));
                    }
                }
            }
        }
        Ok(true)
    }
}

impl Source for OpenedFile {
    const IS_QUICK: bool = true;

    fn meta(&self) -> Meta {
        let length = if self.stat.st_size == 0 { None } else { self.left };
        meta(&self.stat, self.range.offset, length)
    }

    fn length(&self) -> Option<u64> {
        self.left
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable> {
        if self.prepare()? {
            return Ok(Progress::Working);
        }
        let most = at_most(self.left, buffer.len());
        if most == 0 {
            return Ok(Progress::Ended);
        }
        match read_some(&mut self.file, &mut buffer[..most]).map_err(read_failed)? {
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
        // A file that ends early and did not change never had a true size, as in /sys.
        if self.left.is_some_and(|left| left > 0) && changed {
            return Err(Unanswerable::new("the file shrank while it was read", Errno::EIO));
        }
        Ok(changed)
    }
}

fn read_failed(error: io::Error) -> Unanswerable {
    Unanswerable::read(errno_of(&error))
}

/// Reads some bytes; 0 is the end of the file.
fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
