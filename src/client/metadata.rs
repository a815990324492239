//! What a server says of a file, a directory, or whatever else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::stream::{Stream, Wanted, is_name};
use super::{Client, Error, failed};
use crate::wire::{Entry, Kind, Meta, Reply, Start};

/// What something is, like [`std::fs::Metadata`].
///
/// ```no_run
/// let log = mqfs::Client::connect(mqfs::DEFAULT_KEY)?.metadata("/var/log/wtmp")?;
/// println!("{} bytes, mode {:o}", log.len(), log.mode() & 0o7777);
/// # Ok::<(), mqfs::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    meta: Meta,
    uid: u32,
    gid: u32,
    links: u64,
    special: u64,
}

impl Metadata {
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        let Entry { meta, uid, gid, links, special, .. } = *entry;
        Self { meta, uid, gid, links, special }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.meta.kind
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.meta.kind == Kind::Directory
    }

    /// Whether it is a regular file: one that can be [opened](Client::open).
    pub fn is_file(&self) -> bool {
        self.meta.kind == Kind::Regular
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.meta.kind == Kind::Link
    }

    /// Its size in bytes; 0 where the kernel does not say, as for much of /proc.
    #[allow(clippy::len_without_is_empty)] // a size of 0 may mean anything
    pub fn len(&self) -> u64 {
        self.meta.size
    }

    /// Its `st_mode`: kind and permissions, inode(7).
    pub fn mode(&self) -> u32 {
        self.meta.mode
    }

    /// When its content last changed.
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

    /// The same: seconds since the epoch, and nanoseconds.
    pub fn mtime(&self) -> (i64, u32) {
        self.meta.mtime
    }

    /// Whose it is.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Of which group it is.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// How many names it has.
    pub fn nlink(&self) -> u64 {
        self.links
    }

    /// The device that it lies on.
    pub fn dev(&self) -> u64 {
        self.meta.device
    }

    /// Its inode there.
    pub fn ino(&self) -> u64 {
        self.meta.inode
    }

    /// Which device it is, if it is one.
    pub fn rdev(&self) -> u64 {
        self.special
    }
}

/// An entry of a directory, like [`std::fs::DirEntry`].
#[derive(Debug, Clone)]
pub struct DirEntry {
    name: OsString,
    metadata: Metadata,
    target: Option<PathBuf>,
    error: Option<Error>,
}

impl DirEntry {
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        let path = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let target = (entry.meta.kind == Kind::Link).then(|| PathBuf::from(path(entry.target)));
        Self { name: path(entry.name), metadata: Metadata::of(entry), target, error: None }
    }

    /// What is known by its name alone.
    pub(super) fn unknown(name: &[u8]) -> Self {
        Self::of(&Entry::unknown(name))
    }

    /// Its name, which may hold any byte but NUL and the slash: clean it before a terminal sees it
    /// ([`mqfs::escape::escape`](crate::escape::escape)). Empty where what was to be listed is no
    /// directory: then this is that thing itself.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// What it is; of a symbolic link, the link itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where a symbolic link leads; empty if it may not be read.
    pub fn target(&self) -> Option<&Path> {
        self.target.as_deref()
    }

    /// Why nothing is known of it but its name: its [kind](Metadata::kind) is then unknown.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

/// The entries of a directory, sorted by the bytes of their names; like [`std::fs::ReadDir`].
#[derive(Debug)]
pub struct ReadDir {
    stream: Stream,
    /// The name that came last.
    last: Vec<u8>,
    /// Whether the one thing came that is no directory.
    has_itself: bool,
    text: Vec<u8>,
    has_ended: bool,
}

impl ReadDir {
    fn take_next(&mut self) -> Result<Option<DirEntry>, Error> {
        let Some(packed) = self.stream.opening()? else { return Ok(None) };
        if packed.mtype != Reply::META {
            return Err(Error::Corrupt("no entry where one begins"));
        }
        self.stream.text(packed, &mut self.text)?;
        let entry = Entry::decode(&self.text)?;
        let is_itself = self.stream.meta.kind != Kind::Directory;
        if is_itself != entry.name.is_empty() || !(is_itself || is_name(entry.name)) {
            return Err(Error::Corrupt("a name that no entry can have"));
        }
        if self.has_itself {
            return Err(Error::Corrupt("more than was asked for"));
        }
        if !is_itself && entry.name <= &self.last[..] {
            return Err(Error::Corrupt("entries that are not in their order"));
        }
        let (last, mut entry) = (entry.name.to_vec(), DirEntry::of(&entry));
        if entry.metadata.kind() == Kind::Unknown {
            entry.error = Some(self.take_failure()?);
        }
        (self.last, self.has_itself) = (last, is_itself);
        Ok(Some(entry))
    }

    /// What stands behind an entry of which nothing is known.
    fn take_failure(&mut self) -> Result<Error, Error> {
        const MISSING: Error = Error::Corrupt("an entry without a word why it is unknown");
        let packed = self.stream.opening()?.ok_or(MISSING)?;
        self.stream.text(packed, &mut self.text)?;
        match Reply::decode(packed.mtype, &self.text)? {
            Reply::Failure(failure) => Ok(failed(failure)),
            _ => Err(MISSING),
        }
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            let lost = match self.take_next() {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => break,
                // What gets lost now would have said no more.
                Err(error) if self.has_itself && error.is_passing() => break,
                Err(error) => error,
            };
            let start = Start { path: &self.last, arrived: None };
            if let Err(error) = self.stream.go_on(start, lost) {
                self.has_ended = true;
                return Some(Err(error));
            }
        }
        self.has_ended = true;
        None
    }
}

impl Client {
    /// What a directory holds, in the order of the names' bytes. Of anything else, that thing itself is
    /// the only entry, without a name.
    ///
    /// ```no_run
    /// for entry in mqfs::Client::connect(mqfs::DEFAULT_KEY)?.read_dir("/etc")? {
    ///     let entry = entry?;
    ///     println!("{:>9} {}", entry.metadata().len(), mqfs::escape::escape(entry.name()));
    /// }
    /// # Ok::<(), mqfs::Error>(())
    /// ```
    ///
    /// # Errors
    /// Any of [`Error`]; [`Error::Failed`] if the caller may not list it.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<ReadDir, Error> {
        let stream = Stream::open(self, path.as_ref().to_owned(), Wanted::List)?;
        let (last, text) = (Vec::new(), Vec::new());
        Ok(ReadDir { stream, last, has_itself: false, text, has_ended: false })
    }

    /// What something is. Links are followed.
    ///
    /// # Errors
    /// Any of [`Error`]; [`Error::Failed`] if there is no such thing.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.stat(path.as_ref(), true).map(|entry| *entry.metadata())
    }

    /// What something is; of a symbolic link, the link itself and where it leads.
    ///
    /// # Errors
    /// Those of [`metadata`](Self::metadata).
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<DirEntry, Error> {
        self.stat(path.as_ref(), false)
    }

    fn stat(&self, path: &Path, follow: bool) -> Result<DirEntry, Error> {
        let mut stream = Stream::open(self, path.to_owned(), Wanted::Stat { follow })?;
        let mut text = Vec::new();
        loop {
            match stat_once(&mut stream, &mut text) {
                Err(error) if error.is_passing() => stream.go_on(Start::BEGINNING, error)?,
                outcome => return outcome,
            }
        }
    }
}

fn stat_once(stream: &mut Stream, text: &mut Vec<u8>) -> Result<DirEntry, Error> {
    let mut found = None;
    while let Some(packed) = stream.opening()? {
        stream.text(packed, text)?;
        match Reply::decode(packed.mtype, text)? {
            Reply::Meta(_) if found.is_none() => found = Some(DirEntry::of(&Entry::decode(text)?)),
            Reply::Failure(failure) => return Err(failed(failure)),
            _ => return Err(Error::Corrupt("more than was asked for")),
        }
    }
    found.ok_or(Error::Corrupt("nothing of what was asked for"))
}
