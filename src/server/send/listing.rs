//! Sends what a directory contains, or what one file is: a packed META for each entry.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::fstatat;

use super::failure::Unanswerable;
use super::file_meta::{entry, meta};
use super::names::Names;
use super::packed::{Pending, pack_failure};
use super::source::{MAX_WORK, Progress, Source};
use crate::server::resolve::{PathFd, kind};
use crate::wire::{Entry, Kind, Meta, Start};

/// The entries of a directory, or one entry.
#[derive(Debug)]
pub(crate) struct Listing {
    meta: Meta,
    directory: Option<OwnedFd>,
    names: Names,
    pending: Pending,
}

impl Listing {
    /// Lists one file alone.
    pub(super) fn of_one(found: &PathFd) -> Result<Self, Errno> {
        let meta = meta(&found.stat, 0, Some(0));
        let mut pending = Pending::default();
        entry(&found.stat, meta, b"", &found.target()?).append(pending.buffer());
        Ok(Self { meta, directory: None, names: Names::all(), pending })
    }

    /// Lists the content of a directory.
    pub(super) fn of_directory(found: &PathFd, start: Start<'_>) -> Result<Self, Errno> {
        Ok(Self {
            meta: meta(&found.stat, 0, None),
            directory: Some(found.open_directory()?),
            names: Names::after(start.path),
            pending: Pending::default(),
        })
    }

    /// Packs an entry, or reads some names. False: there are no more.
    fn step(&mut self) -> Result<bool, Errno> {
        let Some(directory) = &self.directory else { return Ok(false) };
        if self.names.read_some(directory, 0)? {
            return Ok(true);
        }
        let Some(name) = self.names.next() else { return Ok(self.names.next_batch()) };
        let path = OsStr::from_bytes(name);
        let out = self.pending.buffer();
        match fstatat(directory, path, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let link = (kind(&stat) == Kind::Link).then(|| readlinkat(directory, path));
                let target = link.and_then(Result::ok).map(OsStringExt::into_vec);
                let target = target.unwrap_or_default();
                entry(&stat, meta(&stat, 0, Some(0)), name, &target).append(out);
            }
            // Removed since its name was read.
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                Entry::unknown(name).append(out);
                pack_failure(out, errno.desc(), errno);
            }
        }
        Ok(true)
    }
}

impl Source for Listing {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable> {
        let (begin, mut filled) = (Instant::now(), 0);
        loop {
            filled += self.pending.take(&mut buffer[filled..]);
            let is_late = begin.elapsed() > MAX_WORK;
            if filled == buffer.len() || (filled > 0 && is_late) {
                return Ok(Progress::Bytes(filled));
            }
            if is_late {
                return Ok(Progress::Working);
            }
            if !self.step().map_err(Unanswerable::read)? {
                let ended = Progress::Ended;
                return Ok(if filled > 0 { Progress::Bytes(filled) } else { ended });
            }
        }
    }
}
