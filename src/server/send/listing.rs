//! Sends what a directory contains: an entry for each name, in the order of the kernel.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use libc::dev_t;
use nix::dir::{Dir, OwningIter, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, fstat, fstatat};

use super::failure::Unanswerable;
use super::source::Source;
use crate::server::resolve::{entry, kind};
use crate::sys::errno_of;
use crate::wire::{Entry, Kind};

/// A directory, opened with the caller's rights. It takes no more memory for more names.
pub(super) struct Listing {
    directory: OwnedFd,
    device: dev_t,
    names: OwningIter,
    /// Whether a name was read; "." is one.
    has_names: bool,
    pending: Vec<u8>,
}

impl Listing {
    pub(super) fn new(directory: OwnedFd, device: dev_t) -> Result<Self, Errno> {
        let copy = directory.try_clone().map_err(|error| errno_of(&error))?;
        let names = Dir::from_fd(copy)?.into_iter();
        Ok(Self { directory, device, names, has_names: false, pending: Vec::new() })
    }

    /// Reads the next entry. False: there are no more.
    fn next_entry(&mut self) -> Result<bool, Errno> {
        let Some(name) = self.names.next().transpose()? else {
            // To readdir(3), a directory that was removed is one without even "." in it.
            let is_removed = !self.has_names && fstat(&self.directory)?.st_nlink == 0;
            return if is_removed { Err(Errno::ENOENT) } else { Ok(false) };
        };
        self.has_names = true;
        let bytes = name.file_name().to_bytes();
        if !matches!(bytes, b"." | b"..") {
            match self.mounted_on(&name) {
                Some(stat) => Entry { name: bytes, ..entry(&stat) }.append(&mut self.pending),
                None => append_entry(&self.directory, name.file_name(), &mut self.pending),
            }
        }
        Ok(true)
    }

    /// What the kernel last knew of a file system that is mounted on an entry. It is not asked: if
    /// it does not answer, the other entries are listed all the same.
    fn mounted_on(&self, entry: &nix::dir::Entry) -> Option<FileStat> {
        let known = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC);
        let flags = known | AtFlags::AT_SYMLINK_NOFOLLOW;
        let may_be_mount_point = entry.file_type().is_none_or(|kind| kind == Type::Directory);
        let look = || fstatat(&self.directory, entry.file_name(), flags).ok();
        may_be_mount_point.then(look)?.filter(|found| found.st_dev != self.device)
    }
}

/// Appends the entry of a name, unless the file was removed since its name was read.
fn append_entry(directory: &OwnedFd, name: &CStr, out: &mut Vec<u8>) {
    let bytes = name.to_bytes();
    let look = || fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    match look() {
        Ok(stat) if kind(&stat) == Kind::Link => match readlinkat(directory, name) {
            Ok(target) => {
                let target = target.as_encoded_bytes();
                Entry { name: bytes, target, ..entry(&stat) }.append(out);
            }
            // A link of a kernel's thread in /proc exists, but leads nowhere.
            Err(Errno::ENOENT) if look() == Err(Errno::ENOENT) => {}
            Err(errno) => Entry { name: bytes, errno: Some(errno), ..entry(&stat) }.append(out),
        },
        Ok(stat) => Entry { name: bytes, ..entry(&stat) }.append(out),
        Err(Errno::ENOENT) => {}
        Err(errno) => Entry { name: bytes, errno: Some(errno), ..Entry::default() }.append(out),
    }
}

impl Source for Listing {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Unanswerable> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.pending.is_empty() && !self.next_entry().map_err(Unanswerable::read)? {
                break;
            }
            let count = self.pending.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&self.pending[..count]);
            self.pending.drain(..count);
            filled += count;
        }
        Ok(filled)
    }
}
