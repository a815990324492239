//! Tells clients that their child died, gave up or hung. A plain client does not know about
//! children, and a client in another pid namespace cannot see whether its child is alive.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use sysv_ipc::{SendError, Uid};

use super::admission::ReplyTo;
use super::request_log::Served;

type Reason = (&'static str, Errno);

/// No other failure has this errno. It tells the client that it can ask for the rest.
pub(super) const DIED: Reason = ("the server's child died on the way", Errno::EOWNERDEAD);

pub(super) const HUNG: Reason = ("the file system does not answer", Errno::ETIMEDOUT);

/// The notices that do not fit into a client's queue yet.
#[derive(Default)]
pub(super) struct ChildDeathNotices {
    waiting: Vec<Notice>,
    last_try: Option<Instant>,
}

struct Notice {
    caller: Uid,
    reply: ReplyTo,
    reason: Reason,
    since: Instant,
}

impl ChildDeathNotices {
    /// A user can kill its own children, and leave its queues full.
    const LIMIT: usize = 1024;
    const LIMIT_PER_USER: usize = 64;

    const RETRY_INTERVAL: Duration = Duration::from_secs(1);

    /// A client may read nothing for long: it is stopped, or a pager waits for its user.
    const LIFETIME: Duration = Duration::from_secs(3600);

    /// Tells a client now, or later if its queue is full.
    pub(super) fn send(&mut self, request: &Served, reason: Reason) {
        let Served { caller, reply, .. } = *request;
        let of_caller = |notice: &&Notice| notice.caller == caller;
        if !try_tell(&reply, reason)
            && self.waiting.len() < Self::LIMIT
            && self.waiting.iter().filter(of_caller).count() < Self::LIMIT_PER_USER
        {
            self.waiting.push(Notice { caller, reply, reason, since: Instant::now() });
        }
    }

    pub(super) fn retry(&mut self) {
        let just_tried = |last: Instant| last.elapsed() < Self::RETRY_INTERVAL;
        if self.waiting.is_empty() || self.last_try.is_some_and(just_tried) {
            return;
        }
        self.last_try = Some(Instant::now());
        self.waiting.retain(|Notice { reply, reason, since, .. }| {
            !try_tell(reply, *reason) && since.elapsed() < Self::LIFETIME
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Tries to tell a client. False: its queue is full, so try again later.
fn try_tell(reply: &ReplyTo, (text, errno): Reason) -> bool {
    !reply.is_clients() || reply.try_fail(text, errno) != Err(SendError::Full)
}
