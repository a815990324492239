use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::{Cause, Error};
use super::metadata::{FileType, Metadata};
use crate::wire::{Entry, Kind};

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
