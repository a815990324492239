//! The client: asks a server about files and receives them.
//!
//! The way of a question: `transfer`, `walk` and `listing` plan it. The `pipeline` asks it
//! ahead of the answers, in a `session` from the `pool` or in a new one: `requester` finds the
//! server (`trusted_server`), prepares the queue (`reply_queue`) and sends the request. `inbox`
//! receives, also from shared memory (`window`), and the session tells the answers apart.
//! `reply_watch` notices that a session is lost; the pipeline then asks again what is unanswered.

mod backoff;
mod builder;
mod error;
mod inbox;
mod listing;
mod metadata;
mod pipeline;
mod planned;
mod pool;
mod reply_queue;
mod reply_watch;
mod requester;
pub mod save;
mod session;
mod transfer;
mod trusted_server;
mod walk;
mod window;

use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use sysv_ipc::Key;

use crate::wire::{Operation, Range};

pub use builder::ClientBuilder;
pub use error::{Error, ErrorKind};
pub use listing::ReadDir;
pub use metadata::{DirEntry, FileType, Metadata};
pub use transfer::{Files, Transfer};
pub use walk::{Walk, WalkEntry};

use error::Cause;
use pipeline::Pipeline;
use planned::PlannedQuestion;
use reply_watch::Watch;
use requester::Requester;

/// A client of one server.
///
/// Threads can share a client; transfers at the same time have reply queues of their own. It keeps
/// idle sessions for a few seconds, unless [`sessions`](ClientBuilder::sessions) is off. An
/// [`ErrorKind`] says why a request failed, or why the server does not give the file.
#[derive(Debug, Clone)]
pub struct Client {
    requester: Requester,
}

impl ClientBuilder {
    /// Builds the client. This sends nothing yet.
    pub fn build(self) -> Client {
        Client { requester: Requester::new(self) }
    }
}

impl Client {
    /// A client of the server under a key, with default options. This sends nothing yet.
    pub fn new(key: Key) -> Self {
        Self::builder().key(key).build()
    }

    /// Options for a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Stops this client and its clones from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.requester.watch.clone())
    }

    /// Requests a file and waits until the server begins to answer. The server resolves the path
    /// below its root. If the server is busy or has lost its queue, the client asks again, with
    /// growing pauses, until the timeout.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Transfer, Error> {
        Transfer::open(self.requester.clone(), path.as_ref(), Range::WHOLE)
    }

    /// Requests a range of a file's bytes. Bytes beyond the end of the file are left out.
    ///
    /// ```no_run
    /// # let client = mqfs::Client::new(mqfs::DEFAULT_KEY);
    /// let header = client.open_range("/var/log/wtmp", ..384)?;
    /// let rest = client.open_range("/var/log/wtmp", 384..)?;
    /// # Ok::<(), mqfs::Error>(())
    /// ```
    pub fn open_range(
        &self,
        path: impl AsRef<Path>,
        range: impl RangeBounds<u64>,
    ) -> Result<Transfer, Error> {
        let offset = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        let length = end.map(|end| end.saturating_sub(offset));
        Transfer::open(self.requester.clone(), path.as_ref(), Range { offset, length })
    }

    /// Requests files. [`Files::next_file`] lends one after the other, so it is no iterator.
    pub fn open_all(&self, paths: impl IntoIterator<Item: AsRef<Path>>) -> Files {
        self.fetch_all(paths, Range::WHOLE)
    }

    pub(crate) fn fetch_all<I>(&self, paths: I, range: Range) -> Files
    where
        I: IntoIterator<Item: AsRef<Path>>,
    {
        Files::new(self.requester.clone(), paths, range)
    }

    /// The metadata of a file. Symbolic links are followed.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.stat(path.as_ref(), true)?.metadata()
    }

    /// The metadata of a file; of the link itself if the path ends in a symbolic link.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.stat(path.as_ref(), false)?.metadata()
    }

    /// Where a symbolic link leads. `EINVAL`, as of readlink(2), if the path is no symbolic link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let entry = self.stat(path.as_ref(), false)?;
        entry.link_target().map(Path::to_owned).ok_or_else(|| Cause::server(Errno::EINVAL).into())
    }

    pub(crate) fn stat(&self, path: &Path, follow: bool) -> Result<DirEntry, Error> {
        let mut pipeline = Pipeline::new(self.requester.clone());
        pipeline.push(PlannedQuestion::new(path, Operation::Stat { follow }));
        pipeline.next_entry()
    }

    /// The entries of a directory, sorted by the bytes of their names. If the path is no directory,
    /// the error converts to [`io::ErrorKind::NotADirectory`](std::io::ErrorKind::NotADirectory).
    ///
    /// ```no_run
    /// for entry in mqfs::Client::new(mqfs::DEFAULT_KEY).read_dir("/etc")? {
    ///     let entry = entry?;
    ///     let name = mqfs::escape::escape(entry.file_name());
    ///     println!("{:>9} {name}", entry.metadata()?.len());
    /// }
    /// # Ok::<(), mqfs::Error>(())
    /// ```
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<ReadDir, Error> {
        ReadDir::open(self.requester.clone(), path.as_ref())
    }

    /// Requests a directory with everything below it, or one file. A symbolic link at the end of
    /// the path is followed; other links are entries themselves.
    pub fn walk(&self, path: impl AsRef<Path>) -> Result<Walk, Error> {
        Walk::open(self.requester.clone(), path.as_ref())
    }
}

/// Stops a client from another thread: removes its reply queues, so that every wait on one fails
/// with [`ErrorKind::Cancelled`], and lets it create no new ones.
///
/// ```no_run
/// use std::{thread, time::Duration};
///
/// let client = mqfs::Client::new(mqfs::DEFAULT_KEY);
/// let canceller = client.canceller();
/// thread::spawn(move || {
///     thread::sleep(Duration::from_secs(60));
///     canceller.cancel();
/// });
/// let transfer = client.open("/var/log/wtmp")?;
/// # Ok::<(), mqfs::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Canceller(Watch);

impl Canceller {
    /// Stops the client and its clones for good.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
