//! Sends what a directory contains, or what one file is: a packed META for each entry.

use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::task::Poll;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::fstatat;

use super::failure::Unanswerable;
use super::file_meta::{entry, meta};
use super::names::Names;
use super::packed::{fill_in_steps, pack_unknown, take};
use super::source::{Progress, Source};
use crate::server::resolve::{PathFd, kind};
use crate::wire::{Kind, Meta, Start};

/// The entries of a directory, or one entry.
#[derive(Debug)]
pub(super) struct Listing {
    meta: Meta,
    names: Option<Names>,
    /// The packed entries that were not sent yet.
    pending: Vec<u8>,
}

impl Listing {
    /// Lists one file alone.
    pub(super) fn of_one(found: &PathFd) -> Result<Self, Errno> {
        let meta = meta(&found.stat, 0, Some(0));
        let mut pending = Vec::new();
        entry(&found.stat, meta, b"", &found.target()?).append(&mut pending);
        Ok(Self { meta, names: None, pending })
    }

    /// Lists the content of a directory.
    pub(super) fn of_directory(found: &PathFd, start: Start<'_>) -> Result<Self, Errno> {
        let names = Names::new(found.open_directory()?, Bound::Excluded(start.path));
        Ok(Self { meta: meta(&found.stat, 0, None), names: Some(names), pending: Vec::new() })
    }

    /// Packs an entry, or reads some names. False: there are no more.
    fn step(&mut self) -> Result<bool, Errno> {
        let Some(names) = &mut self.names else { return Ok(false) };
        let name = match names.next()? {
            Poll::Ready(Some(name)) => name,
            Poll::Ready(None) => return Ok(false),
            Poll::Pending => return Ok(true),
        };
        let (directory, path) = (names.directory(), OsStr::from_bytes(&name));
        match fstatat(directory, path, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let link = (kind(&stat) == Kind::Link).then(|| readlinkat(directory, path));
                let target = link.and_then(Result::ok).map(OsStringExt::into_vec);
                let target = target.unwrap_or_default();
                entry(&stat, meta(&stat, 0, Some(0)), &name, &target).append(&mut self.pending);
            }
            // Removed since its name was read.
            Err(Errno::ENOENT) => {}
            Err(errno) => pack_unknown(&mut self.pending, &name, errno),
        }
        Ok(true)
    }
}

impl Source for Listing {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<Progress, Unanswerable> {
        fill_in_steps(buffer, |rest| {
            if self.pending.is_empty() && !self.step()? {
                return Ok(None);
            }
            Ok(Some(take(&mut self.pending, rest)))
        })
    }
}
