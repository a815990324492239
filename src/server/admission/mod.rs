//! Admission: who asks, and whether they are answered. Before any fork, from the kernel's record of
//! the reply queue alone.

#[cfg(test)]
mod fuzz;
pub(crate) mod refusal_log;
pub(crate) mod reply_to;

use std::path::Path;

use crate::sys::geteuid;
use nix::errno::Errno;
use sysv_ipc::{Gid, Uid};

use super::{Config, PlainPolicy};
use crate::ownership::lease::{self, Head};
use crate::server::confine::group_cache::Groups;
use crate::sys::credentials;
use crate::wire::{Cookie, Operation, REPLY_QUEUE_MODE, Range, Request};
use refusal_log::Refusal;
use reply_to::{Dialect, ReplyTo};
use sysv_ipc::{Queue, QueueId, QueueStatus};

/// Who asks: the creator of the reply queue, as the kernel recorded it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

/// A request whose caller is known and may be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted<'a> {
    pub(crate) caller: Caller,
    pub(crate) path: &'a Path,
    pub(crate) operation: Operation<'a>,
    pub(crate) reply: ReplyTo,
}

/// An admitted request in a process that has the caller's rights and no others, as far as the
/// server's own rights go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confined<'a>(Admitted<'a>);

/// A request that is not answered, or only with a FAILURE to a caller that proved itself.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Refusal,
    answer: Option<ReplyTo>,
}

/// What a server's configuration says on whom to admit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    plain: bool,
    server: Uid,
    overflow: Uid,
    overflow_group: Option<Gid>,
}

impl Policy {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            plain: match config.plain {
                PlainPolicy::Never => false,
                PlainPolicy::Owner => !config.lets_others_ask(),
                PlainPolicy::Any => true,
            },
            server: geteuid(),
            overflow: credentials::overflow_uid(),
            overflow_group: credentials::overflow_gid(),
        }
    }

    /// Says what is likely not meant.
    pub(crate) fn warn(&self) {
        if self.server == self.overflow {
            let uid = self.server.as_raw();
            tracing::warn!(
                uid,
                "this uid stands for unknown users too, so it is refused as a caller"
            );
        }
    }

    /// Admits a request that came to the queue `asked`, or says why not.
    pub(crate) fn admit<'a>(
        &self,
        request: &Request<'a>,
        asked: QueueId,
    ) -> Result<Admitted<'a>, Refused> {
        let queue = Queue::from_id(request.reply_queue);
        let status = queue.status().map_err(|_| Refusal::NoReplyQueue)?;
        if !status.permissions.key.is_private() {
            return Err(Refusal::NotPrivate.into());
        }
        if status.permissions.cuid == self.overflow {
            return Err(Refusal::UnknownUid.into());
        }
        if Some(status.permissions.cgid) == self.overflow_group {
            return Err(Refusal::UnknownGid.into());
        }
        // It would read what its creator may.
        if status.permissions.uid != status.permissions.cuid
            && status.permissions.uid != self.server
        {
            return Err(Refusal::HandedToAnother.into());
        }
        let (dialect, operation) = match &request.extension {
            None => (self.admit_plain(queue, &status)?, Operation::Fetch(Range::WHOLE)),
            Some(extension) => {
                let cookie = self.prove(queue, &status, extension.cookie, asked)?;
                let dialect = Dialect::Extended(cookie);
                if let Operation::Unknown { .. } = extension.operation {
                    let answer = Some(ReplyTo::new(queue, &status, dialect));
                    return Err(Refused { reason: Refusal::Unsupported, answer });
                }
                (dialect, extension.operation)
            }
        };
        Ok(Admitted {
            caller: Caller { uid: status.permissions.cuid, gid: status.permissions.cgid },
            path: request.path,
            operation,
            reply: ReplyTo::new(queue, &status, dialect),
        })
    }

    /// A queue that carries a lease, or is about to, is never sent anything without its cookie.
    fn admit_plain(&self, queue: Queue, status: &QueueStatus) -> Result<Dialect, Refusal> {
        if !self.plain {
            return Err(Refusal::Plain);
        }
        if status.permissions.mode == REPLY_QUEUE_MODE {
            return Err(Refusal::PlainForLeased);
        }
        match lease::peek(queue) {
            Head::Lease(_) | Head::UnknownLease(_) => Err(Refusal::PlainForLeased),
            Head::Gone => Err(Refusal::NoReplyQueue),
            Head::Other | Head::Nothing | Head::Unreadable(_) => Ok(Dialect::Plain),
        }
    }

    /// Who knows the cookie in the lease at the head of a queue that only its creator and this
    /// server can read, owns the queue.
    ///
    /// A server that had the queue before knows it as well. But what nobody has received from has at
    /// its head what its creator sent first, and that says which server it is for.
    fn prove(
        &self,
        queue: Queue,
        status: &QueueStatus,
        cookie: Cookie,
        asked: QueueId,
    ) -> Result<Option<Cookie>, Refusal> {
        if status.permissions.mode != REPLY_QUEUE_MODE {
            return Err(Refusal::NoLease);
        }
        match lease::peek(queue) {
            Head::Lease(lease) if lease.cookie != cookie => Err(Refusal::WrongCookie),
            Head::Lease(lease) if lease.request_queue != asked => Err(Refusal::ForAnotherServer),
            Head::Lease(_) if status.received_at.is_some() => Err(Refusal::Used),
            Head::Lease(_) => Ok(Some(cookie)),
            Head::UnknownLease(_) => Err(Refusal::UnknownLease),
            Head::Other | Head::Nothing => Err(Refusal::NoLease),
            Head::Gone => Err(Refusal::NoReplyQueue),
            Head::Unreadable(Errno::ENOSYS) if status.permissions.cuid == self.server => Ok(None),
            Head::Unreadable(Errno::ENOSYS) => Err(Refusal::NoPeek),
            Head::Unreadable(_) => Err(Refusal::Unreadable),
        }
    }
}

impl<'a> Admitted<'a> {
    /// Gives it back, to be told why.
    pub(crate) fn refuse(&self, reason: Refusal) -> Refused {
        Refused { reason, answer: Some(self.reply) }
    }

    /// Becomes the caller, if this process can become anybody, and lets go of what was found of others.
    /// Only root keeps capabilities, for root.
    pub(crate) fn become_caller(self, groups: Option<Groups>) -> Result<Confined<'a>, Errno> {
        match (geteuid().is_root(), self.caller.uid.is_root()) {
            (true, true) => {}
            (true, false) => {
                let groups = groups.ok_or(Errno::EPERM)?;
                let found = groups.of(self.caller.uid, self.caller.gid)?;
                drop(groups);
                credentials::become_user(self.caller.uid, self.caller.gid, &found)?;
            }
            (false, _) => credentials::drop_capabilities()?,
        }
        Ok(Confined(self))
    }
}

impl<'a> Confined<'a> {
    pub(crate) fn path(&self) -> &'a Path {
        self.0.path
    }

    pub(crate) fn operation(&self) -> Operation<'a> {
        self.0.operation
    }
}

impl Refused {
    /// Sends a FAILURE from the parent, which never waits: a client that lets its queue fill up is
    /// told nothing.
    pub(crate) fn tell_caller(&self) {
        if let (Some(reply), Some((text, errno))) = (&self.answer, self.reason.answer()) {
            let _ = reply.try_fail(text, errno);
        }
    }
}

impl From<Refusal> for Refused {
    fn from(reason: Refusal) -> Self {
        Self { reason, answer: None }
    }
}
