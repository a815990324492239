//! A file of a tree: its bytes as packed DATA, and how they end.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::file::{at_most, differ, read_some};
use super::packed::{pack_end, pack_failure};
use crate::sys::errno_of;
use crate::wire::{Packed, Reply, Trailer};

/// A file that is being sent.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
    stat: FileStat,
    /// What is still to come; None: to its end.
    left: Option<u64>,
    sent: u64,
    checksum: crc32fast::Hasher,
}

impl Content {
    /// The rest of an open file.
    pub(crate) fn new(mut file: File, offset: u64) -> Result<Self, Errno> {
        let stat = fstat(&file)?;
        file.seek(SeekFrom::Start(offset)).map_err(|error| errno_of(&error))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // Empty, or a file of /proc, which does not know: reading tells.
        let left = (size > 0).then(|| size.saturating_sub(offset));
        Ok(Self { file, stat, left, sent: 0, checksum: crc32fast::Hasher::new() })
    }

    pub(crate) fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// The bytes to come; None if that is not known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Packs some bytes into the room, and says how much of it they take; or packs the file's end
    /// elsewhere, and says None.
    pub(crate) fn pack(&mut self, room: &mut [u8], end: &mut Vec<u8>) -> Option<usize> {
        let (opening, room) = room.split_at_mut(Packed::SIZE);
        let most = at_most(self.left, room.len());
        let read = match most {
            0 => Ok(0),
            most => read_some(&mut self.file, &mut room[..most]),
        };
        match read {
            Ok(0) => self.finish(end),
            Ok(read) => {
                self.checksum.update(&room[..read]);
                self.sent += read as u64;
                self.left = self.left.map(|left| left - read as u64);
                let packed = Packed { length: read as u32, mtype: Reply::DATA };
                opening.copy_from_slice(&packed.encode());
                return Some(Packed::SIZE + read);
            }
            Err(error) => {
                let errno = errno_of(&error);
                pack_failure(end, &format!("read: {}", errno.desc()), errno);
            }
        }
        None
    }

    fn finish(&self, end: &mut Vec<u8>) {
        let changed = fstat(&self.file).is_ok_and(|now| differ(&self.stat, &now));
        if changed && self.left.is_some_and(|left| left > 0) {
            return pack_failure(end, "the file shrank while it was read", Errno::EIO);
        }
        let checksum = self.checksum.clone().finalize();
        pack_end(end, &Trailer { bytes: self.sent, checksum, changed });
    }
}
