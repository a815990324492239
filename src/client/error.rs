//! What a client cannot do, and why.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use sysv_ipc::Uid;

use crate::escape::escape;
use crate::wire::{MAX_PATH, Malformed};
use sysv_ipc::{self, Key};

/// Why a client could not ask, or did not get what it asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No request queue stands under the key.
    #[error(
        "no server: nothing is under key {key} (is mqfs-server running in this IPC namespace?)"
    )]
    NoServer {
        /// The key.
        key: Key,
    },
    /// A server runs, or did a moment ago, and its request queue is gone: removed, or not made yet.
    #[error("no server: the one under key {key} has no queue at present")]
    ServerAway {
        /// The key.
        key: Key,
    },
    /// The server of the request queue under the key is dead: nobody holds its lock.
    #[error("no server: the one under key {key} is dead (start mqfs-server again)")]
    ServerDead {
        /// The key.
        key: Key,
    },
    /// The request queue belongs to somebody who may not be the server: any user can squat on a key.
    #[error("not trusted: the queue under key {key} belongs to uid {uid}, not to root or you")]
    Untrusted {
        /// The key.
        key: Key,
        /// Who could read what is sent there.
        uid: Uid,
    },
    /// The request queue's mode does not let this user ask.
    #[error("not allowed: the server under key {key} does not take requests from this user")]
    NotAllowed {
        /// The key.
        key: Key,
    },
    /// The path is empty.
    #[error("a path must not be empty")]
    EmptyPath,
    /// The path is longer than [`MAX_PATH`].
    #[error("the path is longer than {MAX_PATH} bytes")]
    LongPath,
    /// The path holds a NUL.
    #[error("a path must not hold a NUL")]
    NulInPath,
    /// The IPC namespace has no queue left for the reply (`ENOSPC`).
    #[error(
        "no queue left for the reply: {in_use} of {limit} are in use \
         (mqfs-reap removes orphaned ones; raising kernel.msgmni makes room)"
    )]
    NoQueueLeft {
        /// How many queues there are.
        in_use: usize,
        /// How many there can be, `kernel.msgmni`.
        limit: usize,
    },
    /// Not even a lease fits into a new queue.
    #[error(
        "queues are too small here: kernel.msgmax and kernel.msgmnb must be some hundred bytes"
    )]
    QueueTooSmall,
    /// Another call on a queue failed, before anything was asked.
    #[error(transparent)]
    Ipc(#[from] sysv_ipc::Error),
    /// The request is larger than `kernel.msgmax` or what the request queue holds.
    #[error("the request is too long for the request queue")]
    RequestTooBig,
    /// The kernel has no random bytes.
    #[error("getrandom: {0}")]
    NoRandom(String),
    /// The server says no, or cannot go on.
    #[error("{}", escape(.text))]
    Failed {
        /// Why, in its words.
        text: String,
        /// Why, as an errno; a plain server gives none.
        errno: Option<Errno>,
    },
    /// Nothing moved for this long.
    #[error("timed out: nothing came for {0:?}")]
    TimedOut(Duration),
    /// An mqfs server did not answer a plain request for this long.
    #[error("timed out: nothing came for {0:?} (the server may take no plain requests)")]
    PlainUnanswered(Duration),
    /// The server died before it answered.
    #[error("the server died before it answered")]
    ServerDied,
    /// The server's child died on the way.
    #[error("incomplete: the server's child died on the way")]
    ChildDied,
    /// A call on the reply queue failed on the way.
    #[error("incomplete: {0}")]
    Broken(sysv_ipc::Error),
    /// Somebody removed the reply queue.
    #[error("incomplete: the reply queue was removed")]
    QueueRemoved,
    /// A transfer was interrupted, and the file is another one by now: what arrived is the
    /// beginning of the earlier one.
    #[error("incomplete: the file changed while the server was away")]
    FileChanged,
    /// The server speaks the plain protocol alone, which has whole files and nothing else.
    #[error("the server knows nothing but whole files")]
    PlainServer,
    /// What arrived cannot be written.
    #[error("cannot write: {0}")]
    Output(String),
    /// What arrived is not what was sent.
    #[error("incomplete: {0}")]
    Corrupt(&'static str),
    /// The server sent what the protocol does not have.
    #[error("protocol error: {0}")]
    Protocol(#[from] Malformed),
    /// The [`Canceller`](super::Canceller) was used.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    pub(super) const WRONG_BEGINNING: Self = Self::Corrupt("it does not begin where it was to");

    /// Whether it could not even be asked: invalid input, or an IPC resource that is not to be had.
    /// Otherwise the request failed.
    pub fn is_before_request(&self) -> bool {
        matches!(
            self,
            Self::NoServer { .. }
                | Self::ServerAway { .. }
                | Self::ServerDead { .. }
                | Self::Untrusted { .. }
                | Self::NotAllowed { .. }
                | Self::EmptyPath
                | Self::LongPath
                | Self::NulInPath
                | Self::NoQueueLeft { .. }
                | Self::QueueTooSmall
                | Self::Ipc(_)
                | Self::RequestTooBig
                | Self::NoRandom(_)
        )
    }

    /// What a transfer's read failed with: it fails with nothing but errors of ours.
    pub(crate) fn of_read(error: io::Error) -> Self {
        error.downcast().unwrap_or(Self::Corrupt("an error without a name"))
    }

    /// Whether an answer got lost on the way, and another request may bring it.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::ServerDied | Self::ChildDied | Self::QueueRemoved)
    }

    /// Whether nobody is there to be asked.
    pub(super) fn is_no_server(&self) -> bool {
        matches!(self, Self::NoServer { .. } | Self::ServerDead { .. }) || self.is_away()
    }

    /// Whether there will be somebody soon.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::ServerAway { .. })
    }

    /// Whether the server is to be asked again, later.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Failed { errno: Some(Errno::EAGAIN), .. })
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            // Not WouldBlock, which tells of a reader that does not wait.
            Self::Failed { errno: Some(Errno::EAGAIN), .. } => io::ErrorKind::ResourceBusy,
            // Not Interrupted, upon which readers try again, for ever.
            Self::Failed { errno: Some(Errno::EINTR), .. } => io::ErrorKind::Other,
            Self::Failed { errno: Some(errno), .. } => io::Error::from(*errno).kind(),
            Self::TimedOut(_) | Self::PlainUnanswered(_) => io::ErrorKind::TimedOut,
            Self::EmptyPath | Self::LongPath | Self::NulInPath => io::ErrorKind::InvalidInput,
            Self::ServerDied | Self::ChildDied | Self::QueueRemoved => {
                io::ErrorKind::ConnectionReset
            }
            Self::Corrupt(_) | Self::Protocol(_) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.io_kind(), error)
    }
}
