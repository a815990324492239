//! A request that the server does not answer: what its caller learns, and what the log says.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::reply_to::ReplyTo;
use crate::counters::RefusalReason;
use crate::server::loggable::loggable;
use crate::wire::{Malformed, Request};

pub(crate) struct Refusal {
    pub(crate) reason: RefusalReason,
    pub(crate) detail: Option<String>,
    /// The reply queue, if an answer may go there. A plain request has proven nothing.
    pub(super) reply: Option<ReplyTo>,
}

impl Refusal {
    /// Tells the caller what it can act on, if an answer may go there and the queue has room.
    pub(crate) fn tell_caller(&self) {
        if let (Some(reply), Some((text, errno))) = (&self.reply, answer(self.reason)) {
            let _ = reply.try_fail(text, errno);
        }
    }
}

fn answer(reason: RefusalReason) -> Option<(&'static str, Errno)> {
    match reason {
        RefusalReason::Unsupported => Some((
            "the server does not know this operation, or this version of the protocol",
            Errno::EPROTONOSUPPORT,
        )),
        RefusalReason::UnknownUid | RefusalReason::UnknownGid => {
            Some(("your user or group is not mapped in the server's user namespace", Errno::EACCES))
        }
        RefusalReason::UserBusy => {
            Some(("busy: as many transfers as one user may have are under way", Errno::EAGAIN))
        }
        RefusalReason::UserHung => Some((
            "busy: as many transfers as one user may have are under way, \
             and a file system does not answer some of them",
            Errno::EAGAIN,
        )),
        RefusalReason::ForkFailed => Some(("busy: the server cannot fork", Errno::EAGAIN)),
        _ => None,
    }
}

impl From<RefusalReason> for Refusal {
    fn from(reason: RefusalReason) -> Self {
        Self { reason, detail: None, reply: None }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        let detail = Some(malformed.to_string());
        Self { reason: RefusalReason::Malformed, detail, reply: None }
    }
}

/// How often each reason came up, and when the log last said so: nobody can flood the log.
#[derive(Default)]
pub(crate) struct RefusalLog([Count; RefusalReason::ALL.len()]);

#[derive(Default)]
struct Count {
    total: u64,
    unlogged: u64,
    logged: Option<Instant>,
}

impl RefusalLog {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Logs a refusal, unless its reason was logged just now.
    pub(crate) fn log(&mut self, refusal: &Refusal, request: Option<&Request<'_>>) {
        let count = &mut self.0[refusal.reason as usize];
        count.total += 1;
        count.unlogged += 1;
        if count.logged.is_some_and(|logged| logged.elapsed() < Self::INTERVAL) {
            return;
        }
        count.logged = Some(Instant::now());
        let requests = std::mem::take(&mut count.unlogged);
        let total = count.total;
        let queue = request.map(|request| request.reply_queue.get());
        let operation = request.map(|request| request.question.operation.name());
        let path = request.map(|request| loggable(request.question.path));
        let detail = refusal.detail.as_deref();
        let reason = refusal.reason.to_string();
        tracing::warn!(reason, detail, queue, operation, path, requests, total, "refused");
    }
}
