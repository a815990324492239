//! A file of a tree: its bytes as packed DATA, and its END.

use std::fs::File;

use nix::errno::Errno;

use super::file::OpenedFile;
use super::file_meta::entry;
use super::packed::{pack_end, pack_failure};
use super::source::{Progress, Source};
use crate::wire::{Entry, Packed, Range, Reply, Trailer};

/// A file that a tree is sending.
#[derive(Debug)]
pub(super) struct TreeFile {
    file: OpenedFile,
    sent: u64,
    checksum: crc32fast::Hasher,
}

impl TreeFile {
    /// Sends an open file from this offset on.
    pub(super) fn new(file: File, offset: u64) -> Result<Self, Errno> {
        let file = OpenedFile::new(file, Range { offset, length: None }, None)?;
        Ok(Self { file, sent: 0, checksum: crc32fast::Hasher::new() })
    }

    /// The file's directory entry.
    pub(super) fn entry<'a>(&self, name: &'a [u8]) -> Entry<'a> {
        entry(self.file.stat(), self.file.meta(), name, b"")
    }

    /// Packs the next bytes into the buffer, and returns how much of it they take. At the end of
    /// the file, packs its END or FAILURE into `end` instead, and returns None.
    pub(super) fn pack(&mut self, buffer: &mut [u8], end: &mut Vec<u8>) -> Option<usize> {
        let (opening, text) = buffer.split_at_mut(Packed::SIZE);
        match self.file.fill(text) {
            Ok(Progress::Bytes(read)) => {
                self.checksum.update(&text[..read]);
                self.sent += read as u64;
                let packed = Packed { length: read as u32, mtype: Reply::DATA };
                opening.copy_from_slice(&packed.encode());
                return Some(Packed::SIZE + read);
            }
            Ok(Progress::Working) => return Some(0),
            Ok(Progress::Ended) => match self.file.has_changed() {
                Ok(changed) => {
                    let checksum = self.checksum.clone().finalize();
                    pack_end(end, &Trailer { bytes: self.sent, checksum, changed });
                }
                Err(failure) => pack_failure(end, &failure.text, failure.errno),
            },
            Err(failure) => pack_failure(end, &failure.text, failure.errno),
        }
        None
    }
}
