//! The client: asks for files and receives them.
//!
//! A client makes a private reply queue for every transfer, puts a lease into it, names it in its
//! request, receives META, DATA …, END or FAILURE from it, and removes it. The request queue is the
//! server's; the client only writes to it, and only if its owner can be trusted.

mod attempt;
mod backoff;
mod error;
mod metadata;
mod reply_queue;
pub mod save;
mod stream;
mod transfer;
mod walk;
mod watch;

use std::ops::{Bound, RangeBounds};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::sys::geteuid;
use sysv_ipc::Uid;

use crate::ownership::server_lock::{self, ServerState};
use crate::sys::AdaptiveSpin;
use crate::wire::{
    DEFAULT_KEY, Extension, Failure, MAX_PATH, MAX_PLAIN_REQUEST, NORMAL_PRIORITY, Operation,
    Range, Request, is_request_queue_mode,
};
use sysv_ipc::{Key, MessageBuffer, Queue, SendError};

pub use error::Error;
pub use metadata::{DirEntry, Metadata, ReadDir};
pub use transfer::Transfer;
pub use walk::{Walk, WalkEntry};

use attempt::Attempt;
use backoff::Backoff;
use reply_queue::ReplyQueue;
use watch::WatchHandle;

/// A client of one server.
///
/// ```no_run
/// use std::io::Read;
///
/// let mut hostname = String::new();
/// mqfs::Client::connect(mqfs::DEFAULT_KEY)?.open("/etc/hostname")?.read_to_string(&mut hostname)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// It may be shared between threads, each with transfers of its own. The server is looked up anew for
/// every request: its queue's id may by then be another user's queue.
#[derive(Debug, Clone)]
pub struct Client {
    options: Builder,
}

/// How a client is to behave; see [`Client::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    key: Key,
    timeout: Duration,
    retries: u32,
    plain: bool,
    server_uid: Option<Uid>,
    watch: WatchHandle,
}

/// Stops a client from another thread: removes its reply queues, so that whoever waits on one gets
/// [`Error::Cancelled`], and lets it make no new ones.
///
/// ```no_run
/// use std::{thread, time::Duration};
///
/// let builder = mqfs::Client::builder();
/// let canceller = builder.canceller();
/// let client = builder.connect()?;
/// thread::spawn(move || {
///     thread::sleep(Duration::from_secs(60));
///     canceller.cancel(); // wherever the client is by then
/// });
/// let transfer = client.open("/var/log/wtmp")?;
/// # Ok::<(), mqfs::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Canceller(WatchHandle);

impl Canceller {
    /// Stops the client, for good.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// The request queue of a server that is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerQueue {
    key: Key,
    queue: Queue,
    owner: Uid,
    /// Whether the queue is marked as an mqfs server's. One that is not is another program's.
    marked: bool,
}

impl ServerQueue {
    fn find(key: Key, trusted: Option<Uid>) -> Result<Self, Error> {
        let no_server = |error: sysv_ipc::Error| match error {
            error if !error.is_gone() => error.into(),
            // It is about to make its queue, perhaps again.
            _ if server_runs(key, trusted) => Error::ServerAway { key },
            _ => Error::NoServer { key },
        };
        let queue = Queue::open(key).map_err(no_server)?;
        let status = queue.status().map_err(no_server)?;
        // The creator keeps the right to read whatever owner IPC_SET gives the queue.
        for uid in [status.permissions.uid, status.permissions.cuid] {
            if !uid.is_root() && uid != geteuid() && Some(uid) != trusted {
                return Err(Error::Untrusted { key, uid });
            }
        }
        let server = Self {
            key,
            queue,
            owner: status.permissions.uid,
            marked: is_request_queue_mode(status.permissions.mode),
        };
        if server_lock::server_state(key, server.owner) == ServerState::Dead && server.marked {
            return Err(Error::ServerDead { key });
        }
        Ok(server)
    }

    /// An mqfs server refuses plain requests without a word, since they prove nothing.
    fn explain(&self, error: Error, plain: bool) -> Error {
        match error {
            Error::TimedOut(after) if plain && self.marked => Error::PlainUnanswered(after),
            other => other,
        }
    }
}

/// Whether somebody who is trusted holds the lock of a server under the key.
fn server_runs(key: Key, trusted: Option<Uid>) -> bool {
    let mut owners = [geteuid()].into_iter().chain(trusted);
    owners.any(|owner| server_lock::server_state(key, owner) == ServerState::Running)
}

impl Builder {
    /// The server's key, instead of [`DEFAULT_KEY`].
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }

    /// How long nothing may come or go before a transfer fails, instead of 30 seconds. Looked at five
    /// times a second. A busy server is asked again for as long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often to ask again in a row without any byte of an answer, instead of 3: after a server
    /// or its child died, or somebody removed the reply queue. While there is no server at all, one
    /// is waited for, until the timeout.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Whether to speak the plain protocol only: no lease, no proof, nothing verified.
    #[must_use]
    pub fn plain(mut self, plain: bool) -> Self {
        self.plain = plain;
        self
    }

    /// A uid beside root and the caller's own that may be the server's.
    #[must_use]
    pub fn server_uid(mut self, uid: Option<Uid>) -> Self {
        self.server_uid = uid;
        self
    }

    /// What stops the clients that this builder makes.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.watch.clone())
    }

    /// Finds the server. One that has lost its queue at present, and will make another, is found too.
    ///
    /// # Errors
    /// [`Error::NoServer`], [`Error::ServerDead`], [`Error::Untrusted`], [`Error::Ipc`].
    pub fn connect(self) -> Result<Client, Error> {
        match ServerQueue::find(self.key, self.server_uid) {
            Ok(_) | Err(Error::ServerAway { .. }) => Ok(Client { options: self }),
            Err(error) => Err(error),
        }
    }
}

impl Client {
    /// Finds the server under a key.
    ///
    /// # Errors
    /// Those of [`Builder::connect`].
    pub fn connect(key: Key) -> Result<Self, Error> {
        Self::builder().key(key).connect()
    }

    /// Options for a client, which [`Builder::connect`] makes.
    pub fn builder() -> Builder {
        Builder {
            key: DEFAULT_KEY,
            timeout: Duration::from_secs(30),
            retries: 3,
            plain: false,
            server_uid: None,
            watch: WatchHandle::new(),
        }
    }

    /// Asks for a file and waits until the server begins to answer. The path is resolved within the
    /// server's export. A server that is too busy, or that has lost its queue, is asked again,
    /// with growing pauses, until the timeout.
    ///
    /// # Errors
    /// Any of [`Error`]; [`Error::Failed`] if the server cannot open the file.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Transfer, Error> {
        self.fetch(path.as_ref(), Range::WHOLE)
    }

    /// Asks for a part of a file, in bytes. Of a part that begins or ends behind the file's end,
    /// what there is arrives, perhaps nothing.
    ///
    /// ```no_run
    /// # let client = mqfs::Client::connect(mqfs::DEFAULT_KEY)?;
    /// let header = client.open_range("/var/log/wtmp", ..384)?;
    /// let rest = client.open_range("/var/log/wtmp", 384..)?;
    /// # Ok::<(), mqfs::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Error::PlainServer`].
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
        self.fetch(path.as_ref(), Range { offset, length })
    }

    fn fetch(&self, path: &Path, range: Range) -> Result<Transfer, Error> {
        let mut tries = self.options.retries;
        let attempt = self.begin(path, Operation::Fetch(range), &mut tries)?;
        Transfer::new(self.clone(), path.to_owned(), range, attempt, tries)
    }

    /// Asks for the first time, and until there is an answer.
    fn begin(&self, path: &Path, operation: Operation, tries: &mut u32) -> Result<Attempt, Error> {
        check(path)?;
        if self.options.plain && operation != Operation::Fetch(Range::WHOLE) {
            return Err(Error::PlainServer);
        }
        self.ask(path, operation).or_else(|error| match error {
            error if error.is_passing() || error.is_busy() || error.is_away() => {
                self.ask_again(path, operation, error, tries)
            }
            error => Err(error),
        })
    }

    fn retries(&self) -> u32 {
        self.options.retries
    }

    /// Asks until there is an answer, with growing pauses, after the answer to an earlier request was
    /// lost. Waiting for a server that is busy, or not there, takes no try.
    fn ask_again(
        &self,
        path: &Path,
        operation: Operation,
        mut lost: Error,
        tries: &mut u32,
    ) -> Result<Attempt, Error> {
        let mut backoff = Backoff::for_server(self.options.timeout);
        loop {
            if lost.is_passing() {
                *tries = tries.checked_sub(1).ok_or_else(|| lost.clone())?;
            }
            lost = loop {
                let pause = backoff.next().ok_or_else(|| lost.clone())?;
                self.options.watch.sleep(pause)?;
                match self.ask(path, operation) {
                    Err(error) if error.is_no_server() => {}
                    Err(error) if error.is_passing() || error.is_busy() => break error,
                    outcome => return outcome,
                }
            };
        }
    }

    /// Asks once.
    fn ask(&self, path: &Path, operation: Operation) -> Result<Attempt, Error> {
        let Builder { key, server_uid, watch, timeout, plain, .. } = &self.options;
        let server = ServerQueue::find(*key, *server_uid)?;
        let reply = ReplyQueue::create(watch, &server, *plain, *timeout)?;
        match self.send_request(&server, &reply, path, operation) {
            Ok(()) => Attempt::begin(reply).map_err(|error| server.explain(error, *plain)),
            // It was there a moment ago, and will be again, or the next one.
            Err(Error::NoServer { key }) => Err(Error::ServerAway { key }),
            Err(error) => Err(error),
        }
    }

    fn send_request(
        &self,
        server: &ServerQueue,
        reply: &ReplyQueue,
        path: &Path,
        operation: Operation,
    ) -> Result<(), Error> {
        let request = encode(server, reply, path, operation);
        let message = MessageBuffer::with_text(NORMAL_PRIORITY, &request);
        let try_send = || match server.queue.try_send(&message) {
            Err(SendError::Full | SendError::Interrupted) => None,
            outcome => Some(outcome),
        };
        let sent = match AdaptiveSpin::default().attempt(try_send) {
            Some(sent) => sent,
            // Never fits, however long it waits: msgop(2).
            None if request_exceeds(server.queue, &message) => return Err(Error::RequestTooBig),
            None => self.send_when_room(server, try_send)?,
        };
        sent.map_err(|error| match error {
            SendError::TooBig => Error::RequestTooBig,
            SendError::Os(error) if error.is_denied() => Error::NotAllowed { key: server.key },
            SendError::Os(error) => error.into(),
            _ => Error::NoServer { key: server.key },
        })
    }

    /// Waits for room in the request queue by trying: nothing could end a wait in msgsnd without
    /// signals, since the queue is not ours to remove.
    fn send_when_room<T>(
        &self,
        server: &ServerQueue,
        mut try_send: impl FnMut() -> Option<T>,
    ) -> Result<T, Error> {
        let mut backoff = Backoff::for_room(self.options.timeout);
        while let Some(pause) = backoff.next() {
            self.options.watch.sleep(pause)?;
            // Looked at again after every pause: the queue may be gone, and its id another's by now.
            if ServerQueue::find(self.options.key, self.options.server_uid)? != *server {
                return Err(Error::NoServer { key: server.key });
            }
            if let Some(sent) = try_send() {
                return Ok(sent);
            }
        }
        Err(Error::TimedOut(self.options.timeout))
    }
}

fn request_exceeds(queue: Queue, request: &MessageBuffer) -> bool {
    queue.status().is_ok_and(|status| request.text().len() as u64 > status.max_bytes)
}

/// The request as `mtext`. A plain server ignores the extension, unless its buffer is too small for a
/// request that has one: that ends TLPI's. So where it may be, the extension stays out.
fn encode(server: &ServerQueue, reply: &ReplyQueue, path: &Path, operation: Operation) -> Vec<u8> {
    let extension = reply.cookie.map(|cookie| Extension { cookie, operation });
    let request = Request { reply_queue: reply.watched.queue().id(), path, extension };
    let encoded = request.encode();
    if server.marked || encoded.len() <= MAX_PLAIN_REQUEST {
        return encoded;
    }
    Request { extension: None, ..request }.encode()
}

/// What the server says.
fn failed(failure: Failure) -> Error {
    let text = String::from_utf8_lossy(&failure.text).into_owned();
    let text = if text.is_empty() { "the server gave no reason".into() } else { text };
    Error::Failed { text, errno: failure.errno }
}

fn check(path: &Path) -> Result<(), Error> {
    let bytes = path.as_os_str().as_bytes();
    match bytes.len() {
        0 => Err(Error::EmptyPath),
        length if length > MAX_PATH => Err(Error::LongPath),
        _ if bytes.contains(&0) => Err(Error::NulInPath),
        _ => Ok(()),
    }
}
