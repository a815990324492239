//! Decides which requests the server answers, and for whom.

use nix::errno::Errno;
use sysv_ipc::{Gid, Permissions, Pid, Queue, QueueId, QueueStatus, Uid};

use super::refusal::Refusal;
use super::reply_to::ReplyTo;
use crate::counters::RefusalReason;
use crate::ownership::lease::{self, Head};
use crate::server::config::{Config, PlainPolicy};
use crate::sys::{credentials, geteuid};
use crate::wire::{Cookie, Operation, Question, REPLY_QUEUE_MODE, Request};

/// The creator of the reply queue. The group counts only if the process still has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted<'a> {
    pub(crate) caller: Caller,
    /// The process that sent the lease, for the log; None if this pid namespace cannot see it.
    pub(crate) client: Option<Pid>,
    pub(crate) question: Question<'a>,
    pub(crate) session: bool,
    /// Whether the client can receive bytes in shared memory.
    pub(crate) windows: bool,
    pub(crate) extents: bool,
    pub(crate) reply: ReplyTo,
    pub(crate) may_log: bool,
}

impl Admitted<'_> {
    pub(crate) fn refuse(&self, reason: RefusalReason, detail: Option<String>) -> Refusal {
        Refusal { reason, detail, reply: Some(self.reply) }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(super) plain: bool,
    pub(super) server: Uid,
    pub(super) unknown_uid: Option<Uid>,
    pub(super) unknown_gid: Option<Gid>,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            plain: match config.plain {
                PlainPolicy::Never => false,
                PlainPolicy::Owner => !config.lets_others_ask(),
                PlainPolicy::Any => true,
            },
            server: geteuid(),
            unknown_uid: credentials::unknown_uid(),
            unknown_gid: credentials::unknown_gid(),
        }
    }

    /// Warns of a server that refuses its own user.
    pub(crate) fn warn(&self) {
        if Some(self.server) == self.unknown_uid {
            tracing::warn!("this user is not mapped in its user namespace, so it is not served");
        }
    }

    pub(crate) fn admit<'a>(
        &self,
        request: &Request<'a>,
        request_queue: QueueId,
    ) -> Result<Admitted<'a>, Refusal> {
        let queue = Queue::from_id(request.reply_queue);
        let status = queue.status().map_err(|_| RefusalReason::NoReplyQueue)?;
        if !status.permissions.key.is_private() {
            return Err(RefusalReason::NotPrivate.into());
        }
        let unknown = self.unknown_id(&status.permissions);
        // Refuse queues handed to a third uid: it could read data opened with the creator's rights.
        let Permissions { uid, cuid, .. } = status.permissions;
        if uid != cuid && (uid != self.server || Some(uid) == self.unknown_uid) {
            return Err(RefusalReason::HandedToAnother.into());
        }
        let cookie = request.extension.map(|extension| extension.cookie);
        let is_proven = match cookie {
            None => self.admit_plain(queue, &status).map(|()| false),
            Some(cookie) => self.prove(queue, &status, cookie, request_queue),
        };
        let is_proven = is_proven.map_err(|reason| unknown.unwrap_or(reason))?;
        let admitted = Admitted {
            caller: Caller { uid: status.permissions.cuid, gid: status.permissions.cgid },
            client: status.last_sender,
            question: request.question,
            session: request.extension.is_some_and(|extension| extension.session),
            windows: request.extension.is_some_and(|extension| extension.windows),
            extents: request.extension.is_some_and(|extension| extension.extents),
            reply: ReplyTo::new(queue, &status, cookie, is_proven),
            may_log: true,
        };
        if let Some(reason) = unknown {
            return Err(admitted.refuse(reason, None)); // an answer may go to this queue
        }
        let is_unknown = matches!(request.question.operation, Operation::Unknown { .. })
            || request.extension.is_some_and(|extension| extension.unknown_version.is_some());
        if is_unknown {
            return Err(admitted.refuse(RefusalReason::Unsupported, None));
        }
        Ok(admitted)
    }

    /// The kernel shows one number for all users and groups that have none in this user namespace.
    fn unknown_id(&self, permissions: &Permissions) -> Option<RefusalReason> {
        if Some(permissions.cuid) == self.unknown_uid {
            Some(RefusalReason::UnknownUid)
        } else if Some(permissions.cgid) == self.unknown_gid {
            Some(RefusalReason::UnknownGid)
        } else {
            None
        }
    }

    /// Without a cookie, nothing is sent to a queue that has a lease or is about to get one.
    fn admit_plain(&self, queue: Queue, status: &QueueStatus) -> Result<(), RefusalReason> {
        if !self.plain {
            return Err(RefusalReason::Plain);
        }
        if status.permissions.mode == REPLY_QUEUE_MODE {
            return Err(RefusalReason::PlainForLeased);
        }
        match lease::peek(queue) {
            Head::Lease(_) | Head::UnknownLease(_) => Err(RefusalReason::PlainForLeased),
            Head::Gone => Err(RefusalReason::NoReplyQueue),
            Head::Other | Head::Nothing | Head::Unreadable(_) => Ok(()),
        }
    }

    /// Checks that the caller knows the cookie in the lease, which only the queue's creator and
    /// this server can read, and that no other server passes the request on: the lease names its
    /// server, and was sent first, since nobody has received any message. False: the kernel cannot
    /// show the lease, but the caller is the server's own user.
    fn prove(
        &self,
        queue: Queue,
        status: &QueueStatus,
        cookie: Cookie,
        request_queue: QueueId,
    ) -> Result<bool, RefusalReason> {
        if status.permissions.mode != REPLY_QUEUE_MODE {
            return Err(RefusalReason::NoLease);
        }
        match lease::peek(queue) {
            Head::Lease(lease) if lease.cookie != cookie => Err(RefusalReason::WrongCookie),
            Head::Lease(lease) if lease.request_queue != request_queue => {
                Err(RefusalReason::ForAnotherServer)
            }
            Head::Lease(_) if status.received_at.is_some() => Err(RefusalReason::Used),
            Head::Lease(_) => Ok(true),
            Head::UnknownLease(_) => Err(RefusalReason::UnknownLease),
            Head::Other | Head::Nothing => Err(RefusalReason::NoLease),
            Head::Gone => Err(RefusalReason::NoReplyQueue),
            Head::Unreadable(Errno::ENOSYS) if status.permissions.cuid == self.server => Ok(false),
            Head::Unreadable(Errno::ENOSYS) => Err(RefusalReason::NoPeek),
            Head::Unreadable(_) => Err(RefusalReason::Unreadable),
        }
    }
}
