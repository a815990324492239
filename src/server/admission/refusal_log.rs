//! What was refused, counted by reason, and told to the log without letting anybody flood it.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use sysv_ipc::Uid;

use super::super::loggable::loggable;
use crate::counters::Refused;
use crate::wire::{Malformed, Request};

/// Why a request was not given to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed")]
    Malformed(Malformed),
    #[error("the reply queue does not exist")]
    NoReplyQueue,
    #[error("the reply queue has a key")]
    NotPrivate,
    #[error("the reply queue cannot be read: it was not handed over to this server")]
    Unreadable,
    #[error("the reply queue's lease is of an unknown version")]
    UnknownLease,
    #[error("the reply queue was handed over to another user")]
    HandedToAnother,
    #[error("somebody has received from the reply queue before")]
    Used,
    #[error("the reply queue's lease is for another server")]
    ForAnotherServer,
    #[error("the reply queue carries no lease")]
    NoLease,
    #[error("the cookie is not that of the reply queue's lease")]
    WrongCookie,
    #[error("the caller's uid is unknown in this user namespace")]
    UnknownUid,
    #[error("the caller's gid is unknown in this user namespace")]
    UnknownGid,
    #[error("a plain request, and --plain does not take it")]
    Plain,
    #[error("a plain request that names an extended client's queue")]
    PlainForLeased,
    #[error("an extension or operation that this build does not know")]
    Unsupported,
    #[error("this kernel has no MSG_COPY: only callers with the server's own uid are served")]
    NoPeek,
    #[error("the user has as many children as one may have")]
    UserBusy(Uid),
    #[error("fork failed")]
    ForkFailed(Errno),
}

impl Refusal {
    /// What a caller that is proven to own the reply queue is told.
    pub(crate) fn answer(self) -> Option<(&'static str, Errno)> {
        match self {
            Self::Unsupported => Some((
                "the server does not know this operation, or this version of the protocol",
                Errno::EPROTONOSUPPORT,
            )),
            Self::UserBusy(_) => {
                Some(("busy: as many transfers as one user may have are under way", Errno::EAGAIN))
            }
            Self::ForkFailed(_) => Some(("busy: the server cannot fork", Errno::EAGAIN)),
            _ => None,
        }
    }
}

/// As what it is counted.
impl From<Refusal> for Refused {
    fn from(reason: Refusal) -> Self {
        match reason {
            Refusal::Malformed(_) => Self::Malformed,
            Refusal::NoReplyQueue => Self::NoReplyQueue,
            Refusal::NotPrivate => Self::NotPrivate,
            Refusal::Unreadable => Self::Unreadable,
            Refusal::UnknownLease => Self::UnknownLease,
            Refusal::HandedToAnother => Self::HandedToAnother,
            Refusal::Used => Self::Used,
            Refusal::ForAnotherServer => Self::ForAnotherServer,
            Refusal::NoLease => Self::NoLease,
            Refusal::WrongCookie => Self::WrongCookie,
            Refusal::UnknownUid => Self::UnknownUid,
            Refusal::UnknownGid => Self::UnknownGid,
            Refusal::Plain => Self::Plain,
            Refusal::PlainForLeased => Self::PlainForLeased,
            Refusal::Unsupported => Self::Unsupported,
            Refusal::NoPeek => Self::NoPeek,
            Refusal::UserBusy(_) => Self::UserBusy,
            Refusal::ForkFailed(_) => Self::ForkFailed,
        }
    }
}

/// How often each reason came up.
#[derive(Debug, Default)]
pub(crate) struct Refusals(HashMap<Discriminant<Refusal>, Tally>);

#[derive(Debug, Default)]
struct Tally {
    total: u64,
    untold: u64,
    told: Option<Instant>,
}

impl Refusals {
    /// Each reason is told at most this often, with the number that came since.
    const TELL_EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn count(&mut self, reason: Refusal, request: Option<&Request<'_>>) {
        let tally = self.0.entry(discriminant(&reason)).or_default();
        tally.total += 1;
        tally.untold += 1;
        if tally.told.is_some_and(|told| told.elapsed() < Self::TELL_EVERY) {
            return;
        }
        tally.told = Some(Instant::now());
        let requests = std::mem::take(&mut tally.untold);
        let total = tally.total;
        let queue = request.map(|request| request.reply_queue.get());
        let path = request.map(|request| loggable(request.path));
        let detail = match reason {
            Refusal::Malformed(malformed) => Some(malformed.to_string()),
            Refusal::UserBusy(uid) => Some(format!("uid {uid}")),
            Refusal::ForkFailed(errno) => Some(errno.to_string()),
            _ => None,
        };
        let reason = reason.to_string();
        tracing::warn!(reason, detail, queue, path, requests, total, "refused");
    }
}
