//! A file of a tree: its bytes as packed DATA, and its END.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::file::read_some;
use super::file_meta::differ;
use super::packed::{pack_end, pack_failure};
use super::source::at_most;
use crate::sys::errno_of;
use crate::wire::{Packed, Reply, Trailer};

/// A file that a tree is sending.
#[derive(Debug)]
pub(super) struct TreeFile {
    file: File,
    stat: FileStat,
    /// How many bytes are left to send. None: the size is unknown, so it is read to its end.
    left: Option<u64>,
    sent: u64,
    checksum: crc32fast::Hasher,
}

impl TreeFile {
    /// Sends an open file from this offset on.
    pub(super) fn new(mut file: File, offset: u64) -> Result<Self, Errno> {
        let stat = fstat(&file)?;
        file.seek(SeekFrom::Start(offset)).map_err(|error| errno_of(&error))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // Empty, or a file of /proc, whose size is not known before it is read.
        let left = (size > 0).then(|| size.saturating_sub(offset));
        Ok(Self { file, stat, left, sent: 0, checksum: crc32fast::Hasher::new() })
    }

    pub(super) fn stat(&self) -> &FileStat {
        &self.stat
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Packs the next bytes into the buffer, and returns how much of it they take. At the end of the
    /// file, packs its END or FAILURE into `end` instead, and returns None.
    pub(super) fn pack(&mut self, buffer: &mut [u8], end: &mut Vec<u8>) -> Option<usize> {
        let (opening, text) = buffer.split_at_mut(Packed::SIZE);
        let read = match at_most(self.left, text.len()) {
            0 => Ok(0),
            most => read_some(&mut self.file, &mut text[..most]),
        };
        match read {
            Ok(0) => self.pack_end(end),
            Ok(read) => {
                self.checksum.update(&text[..read]);
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

    fn pack_end(&self, end: &mut Vec<u8>) {
        let changed = fstat(&self.file).is_ok_and(|now| differ(&self.stat, &now));
        if changed && self.left.is_some_and(|left| left > 0) {
            return pack_failure(end, "the file shrank while it was read", Errno::EIO);
        }
        let checksum = self.checksum.clone().finalize();
        pack_end(end, &Trailer { bytes: self.sent, checksum, changed });
    }
}
