//! What can go wrong: expected outcomes are variants, everything else is an [`Error`].

use std::fmt;
use std::io;

use crate::syscalls::Errno;
use crate::{Key, QueueId, SemaphoreId, SharedMemoryId};

/// A system call that failed, such as `msgget: key 0x0bad0bad: ENOENT: No such file or directory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// The errno, such as `ENOSPC`, as a number.
    pub fn raw_os_error(&self) -> i32 {
        self.errno
    }

    /// The errno, as the standard library classifies it.
    pub fn kind(&self) -> io::ErrorKind {
        io::Error::from_raw_os_error(self.errno).kind()
    }

    /// Whether the object does not exist, or no longer does: `ENOENT` if it was looked up by key,
    /// `EINVAL` or `EIDRM` if it was used by id.
    pub fn is_gone(&self) -> bool {
        match self.object {
            Object::Key(_) | Object::Namespace => self.errno == libc::ENOENT,
            _ => matches!(self.errno, libc::EIDRM | libc::EINVAL),
        }
    }

    /// Whether an object of that key exists already: `EEXIST`.
    pub fn already_exists(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// Whether the namespace has reached its limit on objects of this kind: `ENOSPC`.
    pub fn is_out_of_space(&self) -> bool {
        self.errno == libc::ENOSPC
    }

    /// Whether the caller lacks the permission: `EACCES` or `EPERM`.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, libc::EACCES | libc::EPERM)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.errno).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        write!(f, "{}: {}: ", self.call, self.object)?;
        match NAMES.iter().find(|(errno, _)| *errno == self.errno) {
            Some((_, name)) => write!(f, "{name}: {text}"),
            None => write!(f, "errno {}: {text}", self.errno),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// An error of the same kind, with this one inside.
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

macro_rules! names {
    ($($name:ident)*) => { [$((libc::$name, stringify!($name))),*] };
}

/// The errnos that the man pages of these calls list.
const NAMES: [(Errno, &str); 17] = names! {
    E2BIG EACCES EAGAIN EEXIST EFAULT EFBIG EIDRM EINTR EINVAL ENFILE ENOENT ENOMEM ENOSPC ENOSYS
    EOVERFLOW EPERM ERANGE
};

/// The object that a failed call was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// Looked up or made by its key.
    Key(Key),
    /// Used by its id, like the following two.
    Queue(QueueId),
    SemaphoreSet(SemaphoreId),
    SharedMemory(SharedMemoryId),
    Namespace,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Queue(id) => write!(f, "queue {id}"),
            Self::SemaphoreSet(id) => write!(f, "semaphore set {id}"),
            Self::SharedMemory(id) => write!(f, "shared memory {id}"),
            Self::Namespace => f.write_str("this IPC namespace"),
        }
    }
}

/// An enum of the expected outcomes of a call, and `Os` for all others.
macro_rules! outcomes {
    ($(#[$doc:meta])* $name:ident: $call:literal {
        $($(#[$variant_doc:meta])* $variant:ident($kind:ident): $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A signal handler ran while the caller waited (`EINTR`), even with `SA_RESTART`.
            Interrupted,
            /// Anything else, such as a missing permission.
            Os(Error),
        }

        impl $name {
            /// The outcome, as the standard library classifies errors.
            pub fn kind(&self) -> io::ErrorKind {
                match self {
                    $(Self::$variant => io::ErrorKind::$kind,)*
                    Self::Interrupted => io::ErrorKind::Interrupted,
                    Self::Os(error) => error.kind(),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str(concat!($call, ": ", $text)),)*
                    Self::Interrupted => f.write_str(concat!($call, ": interrupted by a signal")),
                    Self::Os(error) => error.fmt(f),
                }
            }
        }

        impl std::error::Error for $name {}

        impl From<$name> for io::Error {
            /// An error of the same kind, with this one inside.
            fn from(error: $name) -> Self {
                Self::new(error.kind(), error)
            }
        }
    };
}

outcomes! {
    /// Why a message was not sent.
    SendError: "msgsnd" {
        /// The queue does not exist, or was removed while the sender waited (`EINVAL`, `EIDRM`).
        Gone(NotFound): "the queue is gone",
        /// The queue has no room for the message now (`EAGAIN`). Only from calls that do not wait.
        Full(WouldBlock): "the queue is full",
        /// The queue had no room for the message until the deadline.
        TimedOut(TimedOut): "the queue is still full",
        /// The message is larger than `kernel.msgmax` (the other meaning of `EINVAL`).
        TooBig(InvalidInput): "the message is larger than kernel.msgmax",
    }
}

outcomes! {
    /// Why no message was received.
    ReceiveError: "msgrcv" {
        /// The queue does not exist, or was removed while the receiver waited (`EINVAL`, `EIDRM`).
        Gone(NotFound): "the queue is gone",
        /// No message of the wanted type is there (`ENOMSG`). Only from calls that do not wait.
        Empty(WouldBlock): "no such message",
        /// The queue held no message of the wanted type until the deadline.
        TimedOut(TimedOut): "still no such message",
        /// The message is larger than the buffer, and stays in the queue (`E2BIG`).
        TooBig(InvalidInput): "the message is larger than the buffer",
    }
}

outcomes! {
    /// Why operations on a semaphore set were not performed. None of them was.
    OperateError: "semop" {
        /// The set does not exist, or was removed while the caller waited (`EINVAL`, `EIDRM`).
        Gone(NotFound): "the semaphore set is gone",
        /// The operations cannot be performed now (`EAGAIN`). Only from calls that do not wait.
        WouldBlock(WouldBlock): "the operation would block",
        /// The operations could not be performed within the timeout (`EAGAIN` too).
        TimedOut(TimedOut): "timed out",
    }
}
