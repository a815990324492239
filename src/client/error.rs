//! Errors of the client: what failed, and why.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use sysv_ipc::{Key, Uid};

use crate::escape::escape;
use crate::wire::{Failure, Malformed};

/// Why a request or a transfer failed.
///
/// [`source`](std::error::Error::source) is the failed system call, where there is one. The text is
/// safe to show on a terminal. An error converts to an [`io::Error`] of the kind that a local file
/// would give; [`downcast`](io::Error::downcast) brings the original back.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(pub(super) Cause);

/// What kind of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No request queue exists under the key.
    NoServer,
    /// A request queue exists under the key, but its server has died.
    ServerDead,
    /// A server runs, but has no request queue at the moment.
    ServerRestarting,
    /// The request queue belongs to a user whom the client does not trust.
    UntrustedServer,
    /// The server does not accept requests from this user.
    NotAllowed,
    /// The path is empty, too long, or contains a NUL.
    InvalidPath,
    /// The IPC namespace has no queue left for the reply.
    NoQueueLeft,
    /// Another system call failed before the request was sent, or a kernel limit is too small.
    Ipc,
    /// The server has no such file (`ENOENT`).
    NotFound,
    /// The server may not read the file on the caller's behalf (`EACCES`, `EPERM`).
    PermissionDenied,
    /// The server refused the request, or could not complete it, for another reason.
    Failed,
    /// The server speaks only the plain protocol, which can only fetch whole files.
    Unsupported,
    /// Nothing arrived within the [timeout](super::ClientBuilder::timeout), or the server says that
    /// the file system does not answer (`ETIMEDOUT`).
    TimedOut,
    /// The server or its child died, or somebody removed the reply queue, on every
    /// [retry](super::ClientBuilder::retries).
    Interrupted,
    /// The file changed between two parts of an interrupted transfer.
    FileChanged,
    /// What arrived violates the protocol, or its length or checksum is wrong.
    InvalidData,
    /// What arrived cannot be written.
    Output,
    /// A [`Canceller`](super::Canceller) stopped the client.
    Cancelled,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Cause {
    #[error("no server: nothing is under key {key}")]
    NoServer { key: Key },
    #[error("no server: the one under key {key} has no queue at present")]
    ServerRestarting { key: Key },
    #[error("no server: the one under key {key} is dead")]
    ServerDead { key: Key },
    #[error("not trusted: the queue under key {key} belongs to uid {uid}, not to root or you")]
    Untrusted { key: Key, uid: Uid },
    #[error("not allowed: the server under key {key} does not take requests from this user")]
    NotAllowed { key: Key },
    #[error("{0}")]
    InvalidPath(&'static str),
    #[error("no queue left for the reply: {in_use} of {limit} are in use")]
    NoQueueLeft { in_use: usize, limit: usize },
    #[error(
        "queues are too small here: kernel.msgmax and kernel.msgmnb must be some hundred bytes"
    )]
    QueueTooSmall,
    #[error("the request is too long for the request queue")]
    RequestTooBig,
    #[error("cannot use message queues")]
    Ipc(#[from] sysv_ipc::Error),
    #[error("getrandom")]
    NoRandom(#[from] getrandom::Error),
    /// The server's FAILURE. A plain server gives no errno.
    #[error("{}", escape(.text))]
    Failed { text: String, errno: Option<Errno> },
    #[error("timed out: nothing came for {0:?}")]
    TimedOut(Duration),
    #[error("timed out: nothing came for {0:?} ({1})")]
    Unanswered(Duration, &'static str),
    #[error("left out: three others of its directory did not answer")]
    NotAsked,
    #[error("the server died before it answered")]
    ServerDied,
    #[error("incomplete: the server's child died on the way")]
    ChildDied,
    #[error("incomplete: the server ended the session")]
    SentAway,
    #[error("incomplete: the reply queue was removed")]
    QueueRemoved,
    #[error("incomplete")]
    Receive(#[source] sysv_ipc::Error),
    /// Another request is made, which does not allow it.
    #[error("cannot attach the server's shared memory")]
    NoWindow,
    #[error("incomplete: the file changed while the server was away")]
    FileChanged,
    #[error("the server supports only whole files")]
    PlainServer,
    #[error("cannot write the copy: {}", .0.desc())]
    Output(Errno),
    #[error("incomplete: {0}")]
    Corrupt(&'static str),
    #[error("protocol error")]
    Protocol(#[from] Malformed),
    #[error("interrupted")]
    Cancelled,
}

impl Cause {
    pub(super) fn server(errno: Errno) -> Self {
        Self::Failed { text: errno.desc().to_owned(), errno: Some(errno) }
    }
}

impl Error {
    pub(crate) const fn corrupt(why: &'static str) -> Self {
        Self(Cause::Corrupt(why))
    }

    /// What a program can branch on.
    pub fn kind(&self) -> ErrorKind {
        match &self.0 {
            Cause::NoServer { .. } => ErrorKind::NoServer,
            Cause::ServerRestarting { .. } => ErrorKind::ServerRestarting,
            Cause::ServerDead { .. } => ErrorKind::ServerDead,
            Cause::Untrusted { .. } => ErrorKind::UntrustedServer,
            Cause::NotAllowed { .. } => ErrorKind::NotAllowed,
            Cause::InvalidPath(_) => ErrorKind::InvalidPath,
            Cause::NoQueueLeft { .. } => ErrorKind::NoQueueLeft,
            Cause::QueueTooSmall
            | Cause::RequestTooBig
            | Cause::Ipc(_)
            | Cause::NoRandom(_)
            | Cause::NoWindow => ErrorKind::Ipc,
            Cause::Failed { errno: Some(Errno::ENOENT), .. } => ErrorKind::NotFound,
            Cause::Failed { errno: Some(Errno::EACCES | Errno::EPERM), .. } => {
                ErrorKind::PermissionDenied
            }
            Cause::TimedOut(_)
            | Cause::Unanswered(..)
            | Cause::NotAsked
            | Cause::Failed { errno: Some(Errno::ETIMEDOUT), .. } => ErrorKind::TimedOut,
            Cause::Failed { .. } | Cause::Receive(_) => ErrorKind::Failed,
            Cause::ServerDied | Cause::ChildDied | Cause::QueueRemoved | Cause::SentAway => {
                ErrorKind::Interrupted
            }
            Cause::FileChanged => ErrorKind::FileChanged,
            Cause::PlainServer => ErrorKind::Unsupported,
            Cause::Output(_) => ErrorKind::Output,
            Cause::Corrupt(_) | Cause::Protocol(_) => ErrorKind::InvalidData,
            Cause::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// The errno that the server gave, or that a local system call failed with.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.0 {
            Cause::Failed { errno, .. } => errno.map(|errno| errno as i32),
            Cause::Output(errno) => Some(*errno as i32),
            Cause::Ipc(error) | Cause::Receive(error) => Some(error.raw_os_error()),
            _ => None,
        }
    }

    /// Whether no request could be sent: invalid input, no server, or no IPC resource available.
    pub fn is_before_request(&self) -> bool {
        use ErrorKind::{InvalidPath, Ipc, NoQueueLeft, NotAllowed, UntrustedServer};
        let others = [InvalidPath, Ipc, NoQueueLeft, NotAllowed, UntrustedServer];
        self.is_no_server() || others.contains(&self.kind())
    }

    /// The error of a failed read: every one is an [`Error`].
    pub(crate) fn from_read(error: io::Error) -> Self {
        error.downcast().unwrap_or(Self::corrupt("an unknown error"))
    }

    /// Whether an answer was lost on the way, so that another request may bring it.
    pub(super) fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Interrupted
    }

    pub(super) fn is_no_server(&self) -> bool {
        use ErrorKind::{NoServer, ServerDead, ServerRestarting};
        matches!(self.kind(), NoServer | ServerDead | ServerRestarting)
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self.0, Cause::Failed { errno: Some(Errno::EAGAIN), .. })
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error.0 {
            // Not WouldBlock: that means a reader that does not wait.
            Cause::Failed { errno: Some(Errno::EAGAIN), .. } => io::ErrorKind::ResourceBusy,
            // Not Interrupted: readers would try again for ever.
            Cause::Failed { errno: Some(Errno::EINTR), .. } => io::ErrorKind::Other,
            Cause::Failed { errno: Some(errno), .. } | Cause::Output(errno) => {
                io::Error::from(*errno).kind()
            }
            Cause::Ipc(error) | Cause::Receive(error) => error.kind(),
            _ => match error.kind() {
                ErrorKind::TimedOut => io::ErrorKind::TimedOut,
                ErrorKind::InvalidPath => io::ErrorKind::InvalidInput,
                ErrorKind::Interrupted => io::ErrorKind::ConnectionReset,
                ErrorKind::InvalidData => io::ErrorKind::InvalidData,
                ErrorKind::Unsupported => io::ErrorKind::Unsupported,
                _ => io::ErrorKind::Other,
            },
        };
        io::Error::new(kind, error)
    }
}

impl<T> From<T> for Error
where
    Cause: From<T>,
{
    fn from(error: T) -> Self {
        Self(error.into())
    }
}

impl From<Failure> for Cause {
    fn from(Failure { text, errno, .. }: Failure) -> Self {
        if errno == Some(Errno::EOWNERDEAD) {
            return Self::ChildDied;
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let text = if text.is_empty() { "the server gave no reason".into() } else { text };
        Self::Failed { text, errno }
    }
}
