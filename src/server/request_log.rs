//! What the log says about requests, and how much of it each user may fill. A child writes the line
//! of its request. Its caller can kill it before that: then the parent writes one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use sysv_ipc::{Pid, Uid};

use super::admission::{Admitted, ReplyTo};
use super::loggable::{LONGEST, loggable};
use crate::wire::Operation;

/// A request that a child answers; of a session, with its first question.
pub(super) struct Served {
    pub(super) caller: Uid,
    pub(super) reply: ReplyTo,
    pub(super) session: bool,
    client: Option<Pid>,
    operation: Operation,
    path: SmallVec<[u8; 64]>,
}

impl Served {
    pub(super) fn new(request: &Admitted<'_>) -> Self {
        let Admitted { caller, reply, session, client, question, .. } = *request;
        let (operation, path) = (question.operation, question.path.as_os_str().as_bytes().into());
        Self { caller: caller.uid, reply, session, client, operation, path }
    }
}

/// The bytes that each user has added to the log in this minute, and the lines that were left out.
/// Without a limit, a user could fill the disk, or push others' lines out of a rotated log.
pub(super) struct LogLimit {
    since: Instant,
    users: BTreeMap<u32, (usize, u64)>,
}

impl LogLimit {
    const PERIOD: Duration = Duration::from_secs(60);

    /// The most bytes of one user in that time: 7,000 lines with paths of usual length.
    const BYTES: usize = 4 << 20;

    pub(super) fn new() -> Self {
        Self { since: Instant::now(), users: BTreeMap::new() }
    }

    /// Whether a line about this request may be logged. Counts the line.
    pub(super) fn admits(&mut self, request: &Served) -> bool {
        /// The most bytes of a line without its path.
        const LINE: usize = 250;
        // A byte of the path takes at most six when it is escaped.
        let line = LINE + (6 * request.path.len()).min(LONGEST);
        let (bytes, left_out) = self.users.entry(request.caller.as_raw()).or_default();
        let fits = *bytes + line <= Self::BYTES;
        match fits {
            true => *bytes += line,
            false => *left_out += 1,
        }
        fits
    }

    /// Logs what happened to the child of a request, which did not write its line, or not yet.
    pub(super) fn log(&mut self, request: &Served, child: Pid, what: &str, outcome: String) {
        if !self.admits(request) {
            return;
        }
        let (uid, client_pid) = (request.caller.as_raw(), request.client.map(Pid::as_raw));
        let (queue, operation) = (request.reply.queue.id().get(), request.operation.name());
        let path = loggable(Path::new(OsStr::from_bytes(&request.path)));
        let (session, pid) = (request.session, child.as_raw());
        tracing::warn!(uid, client_pid, queue, operation, path, session, pid, outcome, "{what}");
    }

    pub(super) fn renew(&mut self) {
        if self.since.elapsed() >= Self::PERIOD {
            *self = Self::new();
        }
    }
}

impl Drop for LogLimit {
    fn drop(&mut self) {
        for (uid, (_, lines)) in self.users.iter().filter(|(_, (_, lines))| *lines > 0) {
            tracing::warn!(uid, lines, "left out lines of a user who fills the log");
        }
    }
}
