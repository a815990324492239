//! A reply queue that may be sent to, and whether it is still the client's.

use std::time::SystemTime;

use nix::errno::Errno;
use sysv_ipc::Uid;

use crate::ownership::lease::{self, Head};
use crate::wire::{Cookie, Failure, Lease, Reply};
use sysv_ipc::{MessageBuffer, Queue, QueueStatus, SendError};

/// Where an admitted request is to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyTo {
    pub(crate) queue: Queue,
    /// What the queue holds at most, in bytes of `mtext`.
    pub(crate) max_bytes: u64,
    pub(crate) dialect: Dialect,
    /// Who made it, and when it was last changed, as of the admission.
    seen: (Uid, SystemTime),
}

/// Which protocol the client speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialect {
    Plain,
    /// With the cookie of the lease, unless the kernel cannot show it.
    Extended(Option<Cookie>),
}

impl ReplyTo {
    pub(crate) fn new(queue: Queue, status: &QueueStatus, dialect: Dialect) -> Self {
        let seen = (status.permissions.cuid, status.changed_at);
        Self { queue, max_bytes: status.max_bytes, dialect, seen }
    }

    /// Whether it still is the client's. Another queue may have the id by now; nor is one the client's
    /// that can no longer be read.
    pub(crate) fn is_there(&self) -> bool {
        match self.dialect {
            Dialect::Extended(Some(_)) => self.lease().is_some(),
            // A later queue of the same user that nobody has sent to was changed later. A second is what
            // the kernel tells; ids take longer to come round.
            _ => self.queue.status().is_ok_and(|now| {
                let (cuid, changed_at) = self.seen;
                now.permissions.cuid == cuid
                    && (now.changed_at == changed_at || now.last_sender.is_some())
            }),
        }
    }

    /// The lease at the head of the queue, if it is the one that it was admitted for.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let Dialect::Extended(Some(cookie)) = self.dialect else { return None };
        match lease::peek(self.queue) {
            Head::Lease(lease) if lease.cookie == cookie => Some(lease),
            _ => None,
        }
    }

    /// A FAILURE in the client's own dialect.
    pub(crate) fn failure(&self, text: &str, errno: Errno) -> MessageBuffer {
        let errno = match self.dialect {
            Dialect::Plain => None,
            Dialect::Extended(_) => Some(errno),
        };
        let failure = Failure { text: text.as_bytes().to_vec(), errno };
        MessageBuffer::with_text(Reply::FAILURE, &failure.encode())
    }

    /// Sends a FAILURE, if there is room for it.
    pub(crate) fn try_fail(&self, text: &str, errno: Errno) -> Result<(), SendError> {
        self.queue.try_send(&self.failure(text, errno))
    }
}
