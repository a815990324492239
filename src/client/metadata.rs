//! What a server says about a file, shaped like the standard library's types.

use std::fmt;
use std::time::{Duration, SystemTime};

use sysv_ipc::{Gid, Uid};

use crate::wire::{Entry, Kind, Meta};

/// What kind of file something is, like [`std::fs::FileType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileType(Kind);

impl FileType {
    /// Whether it is a regular file.
    pub fn is_file(self) -> bool {
        self.0 == Kind::Regular
    }

    /// Whether it is a directory.
    pub fn is_dir(self) -> bool {
        self.0 == Kind::Directory
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(self) -> bool {
        self.0 == Kind::Link
    }

    /// Whether it is a FIFO.
    pub fn is_fifo(self) -> bool {
        self.0 == Kind::Fifo
    }

    /// Whether it is a UNIX socket.
    pub fn is_socket(self) -> bool {
        self.0 == Kind::Socket
    }

    /// Whether it is a character device.
    pub fn is_char_device(self) -> bool {
        self.0 == Kind::CharacterDevice
    }

    /// Whether it is a block device.
    pub fn is_block_device(self) -> bool {
        self.0 == Kind::BlockDevice
    }
}

/// In words: `regular file`, `symbolic link`.
impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Metadata of a file, like [`std::fs::Metadata`].
///
/// ```no_run
/// let log = mqfs::Client::new(mqfs::DEFAULT_KEY).metadata("/var/log/wtmp")?;
/// println!("{} bytes, mode {:o}", log.len(), log.mode() & 0o7777);
/// # Ok::<(), mqfs::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    meta: Meta,
    uid: Option<Uid>,
    gid: Option<Gid>,
    nlink: Option<u64>,
    rdev: u64,
}

impl Metadata {
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let (nlink, rdev) = (Some(entry.links), entry.special);
        Self { meta: entry.meta, uid: Some(uid), gid: Some(gid), nlink, rdev }
    }

    pub(super) fn of_transfer(meta: Meta) -> Self {
        Self { meta, uid: None, gid: None, nlink: None, rdev: 0 }
    }

    /// The file's type.
    pub fn file_type(&self) -> FileType {
        FileType(self.meta.kind)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type().is_dir()
    }

    /// Whether it is a regular file, which [`Client::open`](super::Client::open) can read.
    pub fn is_file(&self) -> bool {
        self.file_type().is_file()
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type().is_symlink()
    }

    /// The size in bytes. The kernel says 0 for much of /proc, whatever its size.
    #[allow(clippy::len_without_is_empty)] // a size of 0 may mean anything
    pub fn len(&self) -> u64 {
        self.meta.size
    }

    /// Type and permissions: `st_mode`, inode(7).
    pub fn mode(&self) -> u32 {
        self.meta.mode
    }

    /// When the content last changed.
    pub fn modified(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.meta.mtime;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time = match seconds {
            0.. => SystemTime::UNIX_EPOCH.checked_add(whole),
            _ => SystemTime::UNIX_EPOCH.checked_sub(whole),
        };
        let part = Duration::from_nanos(nanoseconds.into());
        time.and_then(|time| time.checked_add(part)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// When the content last changed, in whole seconds since the epoch.
    pub fn mtime(&self) -> i64 {
        self.meta.mtime.0
    }

    /// The nanoseconds that belong to [`mtime`](Self::mtime).
    pub fn mtime_nsec(&self) -> u32 {
        self.meta.mtime.1
    }

    /// The owner. None if this comes from [`Transfer::metadata`](super::Transfer::metadata).
    pub fn uid(&self) -> Option<Uid> {
        self.uid
    }

    /// The group. None if this comes from [`Transfer::metadata`](super::Transfer::metadata).
    pub fn gid(&self) -> Option<Gid> {
        self.gid
    }

    /// The number of hard links. None if this comes from
    /// [`Transfer::metadata`](super::Transfer::metadata).
    pub fn nlink(&self) -> Option<u64> {
        self.nlink
    }

    /// The number of the device that holds the file.
    pub fn dev(&self) -> u64 {
        self.meta.device
    }

    /// The inode number on that device.
    pub fn ino(&self) -> u64 {
        self.meta.inode
    }

    /// The device number of a device file; 0 for anything else.
    pub fn rdev(&self) -> u64 {
        self.rdev
    }
}
