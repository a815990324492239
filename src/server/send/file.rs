//! An open regular file, and the part of it to send.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::transfer::{Progress, SendFailure, Source, unreadable};
use crate::server::resolve;
use crate::wire::{Arrived, Meta, Range};

/// A regular file, opened with the caller's rights, and the part of it to send.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    pub(crate) file: File,
    stat: FileStat,
    range: Range,
    /// What is still to come; None where the file's size is unknown: it is then read to its end.
    left: Option<u64>,
    ahead: Ahead,
}

/// What comes before the first byte.
#[derive(Debug)]
enum Ahead {
    Seek,
    Verify(Arrived),
    Verifying(Unverified),
    Nothing,
}

/// The beginning of a file, which is to have a checksum.
#[derive(Debug)]
pub(crate) struct Unverified {
    left: u64,
    wanted: u32,
    checksum: crc32fast::Hasher,
}

impl Unverified {
    /// How much is read at once, in bytes.
    const AT_ONCE: usize = 256 << 10;

    /// So many bytes from where the file is to be read next.
    pub(crate) fn new(bytes: u64, wanted: u32) -> Self {
        Self { left: bytes, wanted, checksum: crc32fast::Hasher::new() }
    }

    /// Reads some of them. None: there are more to be read. Otherwise whether they are the same.
    pub(crate) fn read(&mut self, file: &mut File) -> io::Result<Option<bool>> {
        let mut bytes = vec![0; at_most(Some(self.left), Self::AT_ONCE)];
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
    pub(crate) fn new(file: File, range: Range, arrived: Option<Arrived>) -> Result<Self, Errno> {
        let stat = fstat(&file)?;
        let left = match u64::try_from(stat.st_size).unwrap_or(0) {
            // Empty, or a file of /proc, which does not know: reading tells.
            0 => range.length,
            size => {
                let rest = size.saturating_sub(range.offset);
                Some(range.length.map_or(rest, |length| length.min(rest)))
            }
        };
        let ahead = match arrived {
            Some(arrived) => Ahead::Verify(arrived),
            None if range.offset > 0 && left != Some(0) => Ahead::Seek,
            None => Ahead::Nothing,
        };
        Ok(Self { file, stat, range, left, ahead })
    }

    /// Takes a step towards the first byte; false if nothing is ahead of it.
    fn step(&mut self) -> Result<bool, SendFailure> {
        let seek = |file: &mut File, to| file.seek(SeekFrom::Start(to)).map_err(unreadable);
        match &mut self.ahead {
            Ahead::Nothing => return Ok(false),
            Ahead::Seek => {
                seek(&mut self.file, self.range.offset)?;
                self.ahead = Ahead::Nothing;
            }
            Ahead::Verify(Arrived { start, checksum }) => {
                seek(&mut self.file, *start)?;
                let bytes = self.range.offset - *start;
                self.ahead = Ahead::Verifying(Unverified::new(bytes, *checksum));
            }
            Ahead::Verifying(unverified) => {
                match unverified.read(&mut self.file).map_err(unreadable)? {
                    None => {}
                    Some(true) => self.ahead = Ahead::Nothing,
                    Some(false) => {
                        let text = "the file changed since its beginning arrived".to_owned();
                        return Err(SendFailure::Unreadable { text, errno: Errno::ESTALE });
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Where a transfer goes on, what arrived before is verified: the END of this one speaks for the rest
/// alone. An mtime would not do, since writes within a tick of the clock, or through mmap, may leave it
/// as it was.
impl Source for OpenedFile {
    const IS_QUICK: bool = true;

    fn meta(&self) -> Meta {
        let length = if self.stat.st_size == 0 { None } else { self.left };
        resolve::meta(&self.stat, self.range.offset, length)
    }

    fn length(&self) -> Option<u64> {
        self.left
    }

    fn fill(&mut self, room: &mut [u8]) -> Result<Progress, SendFailure> {
        if self.step()? {
            return Ok(Progress::Working);
        }
        let most = at_most(self.left, room.len());
        if most == 0 {
            return Ok(Progress::Ended);
        }
        match read_some(&mut self.file, &mut room[..most]).map_err(unreadable)? {
            0 => Ok(Progress::Ended),
            read => {
                self.left = self.left.map(|left| left - read as u64);
                Ok(Progress::Bytes(read))
            }
        }
    }

    fn has_changed(&mut self) -> Result<bool, SendFailure> {
        let now = fstat(&self.file).map_err(|errno| unreadable(errno.into()))?;
        let changed = differ(&self.stat, &now);
        // A file that ends early and did not change is one whose size never meant much, as in /sys.
        if self.left.is_some_and(|left| left > 0) && changed {
            let text = "the file shrank while it was read".to_owned();
            return Err(SendFailure::Unreadable { text, errno: Errno::EIO });
        }
        Ok(changed)
    }
}

pub(crate) fn at_most(left: Option<u64>, room: usize) -> usize {
    left.and_then(|left| usize::try_from(left).ok()).map_or(room, |left| left.min(room))
}

pub(crate) fn read_some(file: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

pub(crate) fn differ(before: &FileStat, now: &FileStat) -> bool {
    let of = |stat: &FileStat| {
        let mtime = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_size, mtime, (stat.st_ctime, stat.st_ctime_nsec))
    };
    of(before) != of(now)
}
