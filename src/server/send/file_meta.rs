//! What a reply says about a file.

use nix::sys::stat::FileStat;

use crate::server::resolve::kind;
use crate::wire::{Entry, Meta};

/// The META of a file, of which `length` bytes from `offset` will come.
pub(super) fn meta(stat: &FileStat, offset: u64, length: Option<u64>) -> Meta {
    Meta {
        kind: kind(stat),
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        device: stat.st_dev,
        inode: stat.st_ino,
        offset,
        length,
    }
}

/// The packed META of a directory entry: its META, owner, name and, for a symbolic link, target.
pub(super) fn entry<'a>(
    stat: &FileStat,
    meta: Meta,
    name: &'a [u8],
    target: &'a [u8],
) -> Entry<'a> {
    Entry {
        meta,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink,
        special: stat.st_rdev,
        name,
        target,
    }
}

/// Whether the content of a file changed between two looks.
pub(super) fn differ(before: &FileStat, now: &FileStat) -> bool {
    let state = |stat: &FileStat| {
        let mtime = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_size, mtime, (stat.st_ctime, stat.st_ctime_nsec))
    };
    state(before) != state(now)
}
