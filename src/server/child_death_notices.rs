//! Clients whose child died, or gave up, before it was done. The parent tells them, since not all can
//! find out: a plain one knows of no child, and one in another pid namespace cannot see whether it lives.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use sysv_ipc::Uid;

use super::admission::reply_to::ReplyTo;
use sysv_ipc::SendError;

/// Who has not been told yet, for want of room in the queue.
#[derive(Debug, Default)]
pub(crate) struct ChildDeathNotices {
    untold: Vec<Untold>,
    tried: Option<Instant>,
}

#[derive(Debug)]
struct Untold {
    caller: Uid,
    reply: ReplyTo,
    since: Instant,
}

impl ChildDeathNotices {
    const TEXT: &str = "the server's child died on the way";

    /// What nothing else fails with: the client may ask for the rest.
    const ERRNO: Errno = Errno::EOWNERDEAD;

    /// How many wait at most, and how many of one user: a user can kill its own children, and let its
    /// queues fill up.
    const MOST: usize = 1024;
    const MOST_PER_USER: usize = 64;

    const RETRY_EVERY: Duration = Duration::from_secs(1);

    /// How long somebody may read nothing who is to be told: a client that was stopped, a pager.
    const PATIENCE: Duration = Duration::from_secs(3600);

    /// Tells a client now, or else later.
    pub(crate) fn tell(&mut self, caller: Uid, reply: ReplyTo) {
        let of_caller = |untold: &&Untold| untold.caller == caller;
        if !needs_no_more(&reply)
            && self.untold.len() < Self::MOST
            && self.untold.iter().filter(of_caller).count() < Self::MOST_PER_USER
        {
            self.untold.push(Untold { caller, reply, since: Instant::now() });
        }
    }

    /// Tries again, now and then.
    pub(crate) fn tell_rest(&mut self) {
        let recently = |tried: Instant| tried.elapsed() < Self::RETRY_EVERY;
        if self.untold.is_empty() || self.tried.is_some_and(recently) {
            return;
        }
        self.tried = Some(Instant::now());
        self.untold.retain(|untold| {
            !needs_no_more(&untold.reply) && untold.since.elapsed() < Self::PATIENCE
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.untold.is_empty()
    }
}

/// Tells a client, if it is there and has room. Whether there is nothing to tell it any more.
fn needs_no_more(reply: &ReplyTo) -> bool {
    !reply.is_there()
        || reply.try_fail(ChildDeathNotices::TEXT, ChildDeathNotices::ERRNO) != Err(SendError::Full)
}
