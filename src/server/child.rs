//! A child that runs: what it waits for, as far as the kernel's record of its reply queue tells.
//!
//! A child that a file system holds can tell nobody, and not even `SIGKILL` ends that wait. Every
//! other child ends when its time is up. So one that does nothing for longer hangs.

use std::time::{Duration, Instant, SystemTime};

use sysv_ipc::{Pid, QueueStatus};

use super::request_log::Served;

pub(super) struct Child {
    pub(super) pid: Pid,
    /// The request that it answers. None: it removes orphaned queues.
    pub(super) request: Option<Served>,
    pub(super) started: Instant,
    pub(super) makes_way: bool,
    pub(super) waits_for: WaitsFor,
    /// When the queue was last received from, and how many messages were in it.
    record: (Option<SystemTime>, u64),
    /// For how long `record` has not changed, as far as the server has looked.
    pub(super) silence: Duration,
    /// Whether it has run for the stall timeout, and is stopped (`SIGSTOP`).
    pub(super) is_stopped: bool,
    pub(super) noted_stopped: bool,
    /// Whether it was killed because it hung. Its client knows.
    pub(super) is_given_up: bool,
}

/// What a child waits for, if it waits. Sessions that wait for what stands last make way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaitsFor {
    /// A file: there is room for its answer in the queue.
    FileSystem,
    /// The client has not read what the child sent.
    Client,
    /// The client of a session has read everything, and may have asked nothing more.
    Question,
    /// The client has removed the queue.
    Nothing,
}

impl WaitsFor {
    fn of(child: Pid, is_session: bool, status: &QueueStatus) -> Self {
        let is_child = |pid: Option<Pid>| pid == Some(child);
        let has_unread = status.messages > 1 && is_child(status.last_sender);
        // A message takes at most half of the queue.
        if status.bytes > status.max_bytes / 2 || is_session && has_unread {
            return Self::Client;
        }
        // An idle child would have taken what a client sent.
        let may_be_idle =
            status.messages == 1 && status.received_at.is_some() && !is_child(status.last_receiver);
        if is_session && may_be_idle { Self::Question } else { Self::FileSystem }
    }
}

impl Child {
    pub(super) fn new(pid: Pid, request: Option<Served>) -> Self {
        Self {
            pid,
            request,
            started: Instant::now(),
            makes_way: false,
            waits_for: WaitsFor::FileSystem,
            record: (None, 1), // the lease
            silence: Duration::ZERO,
            is_stopped: false,
            noted_stopped: false,
            is_given_up: false,
        }
    }

    pub(super) fn is_session(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.session)
    }

    /// Looks at the kernel's record of the queue: a caller may have taken its child over.
    pub(super) fn look(&mut self, since_last: Duration) {
        let Some(Served { reply, session, .. }) = &self.request else { return };
        let status = if reply.is_clients() { reply.queue.status().ok() } else { None };
        let record = status.map_or((None, 0), |now| (now.received_at, now.messages.max(1)));
        if record == self.record {
            self.silence += since_last;
        } else {
            (self.record, self.silence) = (record, Duration::ZERO);
        }
        let waits_for = |status| WaitsFor::of(self.pid, *session, &status);
        self.waits_for = status.map_or(WaitsFor::Nothing, waits_for);
    }

    /// Whether it waits for a file system that does not answer, or is stopped. Then it counts for
    /// its user alone, so that it takes no other user's place.
    pub(super) fn is_hung(&self) -> bool {
        let waits_for_file = match self.waits_for {
            WaitsFor::FileSystem | WaitsFor::Nothing => true,
            WaitsFor::Question => self.makes_way, // an idle session would be gone
            WaitsFor::Client => false,
        };
        self.is_given_up || self.is_stopped || (waits_for_file && !self.silence.is_zero())
    }
}
