//! Why a transfer failed.

use std::borrow::Cow;

use nix::errno::Errno;

use super::outbox::Undelivered;
use crate::counters::FailureReason;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    #[error(transparent)]
    Unanswerable(#[from] Unanswerable),
}

/// Why a request cannot be answered. The client gets a FAILURE with this text and errno.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Unanswerable {
    pub(crate) text: Cow<'static, str>,
    pub(crate) errno: Errno,
}

impl Unanswerable {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>, errno: Errno) -> Self {
        Self { text: text.into(), errno }
    }

    pub(super) fn read(errno: Errno) -> Self {
        Self::new(format!("read: {}", errno.desc()), errno)
    }

    pub(crate) fn reason(&self) -> FailureReason {
        match self.errno {
            Errno::ENOENT | Errno::ENOTDIR => FailureReason::NotFound,
            Errno::EACCES | Errno::EPERM => FailureReason::Denied,
            Errno::EISDIR | Errno::EOPNOTSUPP | Errno::ENXIO => FailureReason::NotRegular,
            Errno::ENAMETOOLONG | Errno::ELOOP | Errno::EXDEV => FailureReason::BadPath,
            Errno::EIO => FailureReason::Read,
            _ => FailureReason::Other,
        }
    }
}

impl From<Errno> for Unanswerable {
    fn from(errno: Errno) -> Self {
        Self::new(errno.desc(), errno)
    }
}

impl From<Errno> for SendFailure {
    fn from(errno: Errno) -> Self {
        Self::Unanswerable(errno.into())
    }
}
