//! What a server says about a file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use sysv_ipc::{Gid, Uid};

use super::error::{Cause, Error};
use crate::wire::{Entry, Kind, Stat};

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
pub struct Metadata(pub(super) Stat);

impl Metadata {
    /// The file's type.
    pub fn file_type(&self) -> FileType {
        FileType(self.0.kind)
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
        self.0.size
    }

    /// Type and permissions: `st_mode`, inode(7).
    pub fn mode(&self) -> u32 {
        self.0.mode
    }

    /// When the content last changed, in whole seconds since the epoch.
    pub fn mtime(&self) -> i64 {
        self.0.mtime.0
    }

    /// The nanoseconds that belong to [`mtime`](Self::mtime).
    pub fn mtime_nsec(&self) -> u32 {
        self.0.mtime.1
    }

    /// The owner.
    pub fn uid(&self) -> Uid {
        Uid::from_raw(self.0.uid)
    }

    /// The group.
    pub fn gid(&self) -> Gid {
        Gid::from_raw(self.0.gid)
    }

    /// The number of hard links.
    pub fn nlink(&self) -> u64 {
        self.0.links
    }

    /// The number of the device that holds the file.
    pub fn dev(&self) -> u64 {
        self.0.device
    }

    /// The inode number on that device.
    pub fn ino(&self) -> u64 {
        self.0.inode
    }

    /// The device number of a device file; 0 for anything else.
    pub fn rdev(&self) -> u64 {
        self.0.special
    }
}

/// An entry of a directory, like [`std::fs::DirEntry`].
#[derive(Debug, Clone)]
pub struct DirEntry {
    name: OsString,
    metadata: Result<Metadata, Error>,
    link_target: PathBuf,
}

impl DirEntry {
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        Self {
            name: OsString::from_vec(entry.name.to_vec()),
            metadata: match entry.errno {
                Some(errno) if entry.stat.kind == Kind::Unknown => Err(Cause::server(errno).into()),
                _ => Ok(Metadata(entry.stat)),
            },
            link_target: OsString::from_vec(entry.target.to_vec()).into(),
        }
    }

    pub(super) fn new(name: &[u8], metadata: Result<Metadata, Error>) -> Self {
        Self { name: OsString::from_vec(name.to_vec()), metadata, link_target: PathBuf::new() }
    }

    /// The name. It may hold any byte but NUL and the slash: pass it through
    /// [`mqfs::escape::escape`](crate::escape::escape) before you show it on a terminal.
    pub fn file_name(&self) -> &OsStr {
        &self.name
    }

    /// The metadata; an error if the server could not look at the file. Links are not followed.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        self.metadata.clone()
    }

    /// The file's type, from [`metadata`](Self::metadata).
    pub fn file_type(&self) -> Result<FileType, Error> {
        self.metadata().map(|metadata| metadata.file_type())
    }

    /// Where a symbolic link leads. None if this is no link, or if the server could not read it.
    pub fn link_target(&self) -> Option<&Path> {
        Some(&*self.link_target).filter(|target| !target.as_os_str().is_empty())
    }
}
