//! A request that the server does not answer, and what its caller learns.

use nix::errno::Errno;

use super::reply_to::ReplyTo;
use crate::counters::RefusalReason;
use crate::wire::Malformed;

/// A refused request.
pub(crate) struct Refusal {
    pub(crate) reason: RefusalReason,
    /// What the log says about it beside the reason.
    pub(crate) detail: Option<String>,
    /// The reply queue, if the caller has proven that it owns it.
    pub(super) reply: Option<ReplyTo>,
}

impl Refusal {
    /// Sends a FAILURE to a caller that has proven itself, for the few reasons that it can act on.
    /// The parent never waits, so it drops the FAILURE if the caller's queue is full.
    pub(crate) fn tell_caller(&self) {
        if let (Some(reply), Some((text, errno))) = (&self.reply, answer(self.reason)) {
            let _ = reply.try_fail(text, errno);
        }
    }
}

/// The text and errno for a caller that has proven itself.
fn answer(reason: RefusalReason) -> Option<(&'static str, Errno)> {
    match reason {
        RefusalReason::Unsupported => Some((
            "the server does not know this operation, or this version of the protocol",
            Errno::EPROTONOSUPPORT,
        )),
        RefusalReason::UnknownUid | RefusalReason::UnknownGid => {
            Some(("your user or group has no number in the server's user namespace", Errno::EACCES))
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
