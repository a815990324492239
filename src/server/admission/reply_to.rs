//! Where to answer: an admitted reply queue, and whether it still belongs to the client.

use std::time::SystemTime;

use nix::errno::Errno;
use sysv_ipc::{MessageBuffer, Queue, QueueLimits, QueueStatus, SendError, Uid};

use crate::ownership::lease::{self, Head};
use crate::wire::{Cookie, Failure, FrameType, Lease, MAX_PLAIN_REPLY};

#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyTo {
    pub(crate) queue: Queue,
    /// The most bytes of `mtext` that the queue can hold.
    pub(crate) max_bytes: usize,
    /// The most bytes of `mtext` that a message can have.
    pub(crate) msgmax: usize,
    /// The request's cookie. None in a plain request.
    pub(crate) cookie: Option<Cookie>,
    /// Whether the lease has the cookie, too. False also if this kernel has no `MSG_COPY`.
    pub(super) is_proven: bool,
    /// The queue's creator and the time of its last change, at the admission.
    admitted: (Uid, SystemTime),
}

impl ReplyTo {
    pub(super) fn new(
        queue: Queue,
        status: &QueueStatus,
        cookie: Option<Cookie>,
        is_proven: bool,
    ) -> Self {
        let admitted = (status.permissions.cuid, status.changed_at);
        let max_bytes = usize::try_from(status.max_bytes).unwrap_or(usize::MAX);
        let msgmax = QueueLimits::current().map_or(MAX_PLAIN_REPLY, |limits| limits.msgmax);
        Self { queue, max_bytes, msgmax, cookie, is_proven, admitted }
    }

    /// Whether the queue still belongs to the client: its id may have been given to another queue.
    pub(crate) fn is_clients(&self) -> bool {
        if self.is_proven {
            return self.lease().is_some();
        }
        // If the queue was changed since and nobody has sent to it, it is a later queue with this
        // id: the kernel notes times in whole seconds, and takes longer to reuse an id.
        let (cuid, changed_at) = self.admitted;
        self.queue.status().is_ok_and(|now| {
            now.permissions.cuid == cuid
                && (now.changed_at == changed_at || now.last_sender.is_some())
        })
    }

    /// The lease at the head of the queue, if it has the cookie of the admission.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let cookie = self.cookie?;
        match lease::peek(self.queue) {
            Head::Lease(lease) if lease.cookie == cookie => Some(lease),
            _ => None,
        }
    }

    /// A FAILURE of the whole request, in the form of the protocol that the client speaks.
    pub(crate) fn failure(&self, text: &str, errno: Errno) -> MessageBuffer {
        let errno = self.cookie.map(|_| errno);
        let failure = Failure { text: text.as_bytes().to_vec(), errno, cookie: self.cookie };
        MessageBuffer::with_text(FrameType::Failure.mtype(), &failure.encode())
    }

    pub(crate) fn try_fail(&self, text: &str, errno: Errno) -> Result<(), SendError> {
        self.queue.try_send(&self.failure(text, errno))
    }
}
