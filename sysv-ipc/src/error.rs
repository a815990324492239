//! What can go wrong, split into what a program must expect and what it cannot do anything about.

use std::fmt;
use std::io;

use nix::errno::Errno;

use super::{Key, QueueId};

/// A system call that failed: its name, what it was about, and the errno.
///
/// ```
/// use sysv_ipc::{Key, Queue};
///
/// let error = Queue::open(Key::new(0x0bad_0bad)).unwrap_err();
/// assert_eq!(error.to_string(), "msgget: key 0x0bad0bad: ENOENT: No such file or directory");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {object}: {errno}")]
pub struct Error {
    call: &'static str,
    object: Object,
    errno: Errno,
}

impl Error {
    pub(crate) fn new(call: &'static str, object: Object, errno: Errno) -> Self {
        Self { call, object, errno }
    }

    /// The system call, as its man page spells it.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What the call was about.
    pub fn object(&self) -> Object {
        self.object
    }

    /// Why it failed: an errno, such as `libc::ENOSPC`.
    pub fn raw_os_error(&self) -> i32 {
        self.errno as i32
    }

    /// Why it failed, as the standard library sorts errnos.
    pub fn kind(&self) -> io::ErrorKind {
        io::Error::from(self.errno).kind()
    }

    /// Whether the object does not exist, or no longer does: `ENOENT` where it was looked up by
    /// key, `EINVAL` or `EIDRM` where it was used by id.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno, Errno::ENOENT | Errno::EIDRM)
            || (self.errno == Errno::EINVAL && self.object.is_id())
    }

    /// Whether an object of that key exists already: `EEXIST`.
    pub fn already_exists(&self) -> bool {
        self.errno == Errno::EEXIST
    }

    /// Whether the namespace has no object left of the kind: `ENOSPC`.
    pub fn is_out_of_space(&self) -> bool {
        self.errno == Errno::ENOSPC
    }

    /// Whether the caller lacks the permission: `EACCES` or `EPERM`.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, Errno::EACCES | Errno::EPERM)
    }
}

/// An error of the same kind, with this one inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// What a failed call was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// An object looked up or made by its key.
    Key(Key),
    /// A message queue used by its id.
    Queue(QueueId),
    /// A semaphore set used by its id.
    Semaphore(i32),
    /// A segment of shared memory used by its id.
    SharedMemory(i32),
    /// The IPC namespace as a whole.
    Namespace,
}

impl Object {
    fn is_id(self) -> bool {
        matches!(self, Self::Queue(_) | Self::Semaphore(_) | Self::SharedMemory(_))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Queue(id) => write!(f, "queue {id}"),
            Self::Semaphore(id) => write!(f, "semaphore {id}"),
            Self::SharedMemory(id) => write!(f, "shared memory {id}"),
            Self::Namespace => f.write_str("this IPC namespace"),
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue does not exist, or was removed while the sender waited (`EINVAL`, `EIDRM`).
    #[error("msgsnd: the queue is gone")]
    Gone,
    /// The queue has no room for the message now (`EAGAIN`; only of the calls that do not wait).
    #[error("msgsnd: the queue is full")]
    Full,
    /// The message is larger than `kernel.msgmax` (the other meaning of `EINVAL`).
    #[error("msgsnd: the message is larger than kernel.msgmax")]
    TooBig,
    /// A signal handler ran while the sender waited. Never restarted, even with `SA_RESTART`:
    /// signal(7).
    #[error("msgsnd: interrupted by a signal")]
    Interrupted,
    /// Anything else, such as a missing permission.
    #[error(transparent)]
    Os(Error),
}

/// Why no message was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The queue does not exist, or was removed while the receiver waited (`EINVAL`, `EIDRM`).
    #[error("msgrcv: the queue is gone")]
    Gone,
    /// The queue holds no message of the kind asked for (`ENOMSG`; only of the calls that do not
    /// wait).
    #[error("msgrcv: no such message")]
    Empty,
    /// The message is larger than the buffer, and stays in the queue (`E2BIG`).
    #[error("msgrcv: the message is larger than the buffer")]
    TooBig,
    /// A signal handler ran while the receiver waited. Never restarted, even with `SA_RESTART`:
    /// signal(7).
    #[error("msgrcv: interrupted by a signal")]
    Interrupted,
    /// Anything else, such as a missing permission, or a kernel without `MSG_COPY` (`ENOSYS`).
    #[error(transparent)]
    Os(Error),
}
