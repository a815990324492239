//! A request that the server does not answer, and what its caller learns.

use std::fmt;

use nix::errno::Errno;
use sysv_ipc::Uid;

use super::reply_to::ReplyTo;
use crate::counters::RefusalReason;
use crate::wire::Malformed;

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: RefusalReason,
    pub(crate) detail: Option<Detail>,
    /// The reply queue, if the caller has proven that it owns it.
    pub(super) reply: Option<ReplyTo>,
}

/// What the log says about a refusal beside its reason.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Detail {
    Malformed(Malformed),
    User(Uid),
    Errno(Errno),
}

impl Refusal {
    /// Sends a FAILURE to a caller that has proven itself, for the few reasons that it can act on.
    /// The parent never waits, so a caller whose queue is full gets none.
    pub(crate) fn tell_caller(&self) {
        if let (Some(reply), Some((text, errno))) = (&self.reply, answer(self.reason)) {
            let _ = reply.try_fail(text, errno);
        }
    }
}

/// What a caller that has proven itself is told.
fn answer(reason: RefusalReason) -> Option<(&'static str, Errno)> {
    match reason {
        RefusalReason::Unsupported => Some((
            "the server does not know this operation, or this version of the protocol",
            Errno::EPROTONOSUPPORT,
        )),
        RefusalReason::UserBusy => {
            Some(("busy: as many transfers as one user may have are under way", Errno::EAGAIN))
        }
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
        let detail = Some(Detail::Malformed(malformed));
        Self { reason: RefusalReason::Malformed, detail, reply: None }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Errno(errno) => errno.fmt(f),
        }
    }
}
