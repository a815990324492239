//! What a directory holds, or what one thing is: a packed META for each.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::fstatat;

use super::names::Names;
use super::packed::{Pending, pack_failure};
use super::transfer::{PATIENCE, Progress, SendFailure, Source, unreadable};
use crate::server::resolve::{PathFd, entry, kind, meta};
use crate::wire::{Entry, Kind, Meta, Start};

/// Says what is there.
#[derive(Debug)]
pub(crate) struct Listing {
    meta: Meta,
    directory: Option<OwnedFd>,
    names: Names,
    pending: Pending,
}

impl Listing {
    /// Of the one thing.
    pub(crate) fn of_one(found: &PathFd) -> Result<Self, Errno> {
        let meta = meta(&found.stat, 0, Some(0));
        let mut pending = Pending::default();
        entry(&found.stat, meta, b"", &found.target()?).append(pending.add());
        Ok(Self { meta, directory: None, names: Names::all(), pending })
    }

    /// Of what a directory holds.
    pub(crate) fn of_directory(found: &PathFd, start: Start<'_>) -> Result<Self, Errno> {
        Ok(Self {
            meta: meta(&found.stat, 0, None),
            directory: Some(found.open_directory()?),
            names: Names::behind(start.path),
            pending: Pending::default(),
        })
    }

    /// Does the next thing: packs an entry, or reads names; false if there is none. One that went since its name was read was never
    /// there.
    fn step(&mut self) -> Result<bool, Errno> {
        let Some(directory) = &self.directory else { return Ok(false) };
        if self.names.read_some(directory, 0)? {
            return Ok(true);
        }
        let Some(name) = self.names.next() else { return Ok(self.names.go_on()) };
        let path = OsStr::from_bytes(name);
        let out = self.pending.add();
        match fstatat(directory, path, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let link = (kind(&stat) == Kind::Link).then(|| readlinkat(directory, path));
                let target = link.and_then(Result::ok).map(OsStringExt::into_vec);
                let target = target.unwrap_or_default();
                entry(&stat, meta(&stat, 0, Some(0)), name, &target).append(out);
            }
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

    fn fill(&mut self, room: &mut [u8]) -> Result<Progress, SendFailure> {
        let (begin, mut filled) = (Instant::now(), 0);
        loop {
            filled += self.pending.take(&mut room[filled..]);
            if filled == room.len() || (filled > 0 && begin.elapsed() > PATIENCE) {
                return Ok(Progress::Bytes(filled));
            }
            if begin.elapsed() > PATIENCE {
                return Ok(Progress::Working);
            }
            if !self.step().map_err(|errno| unreadable(errno.into()))? {
                let ended = Progress::Ended;
                return Ok(if filled > 0 { Progress::Bytes(filled) } else { ended });
            }
        }
    }
}
