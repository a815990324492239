//! What the parent logs about requests, and how much of the log each user may fill.
//!
//! A child writes the line of its request. A caller can kill its child before that, so the parent
//! remembers the request, and writes a line if the child did not.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use sysv_ipc::{Pid, QueueId, Uid};

use super::admission::Admitted;
use super::loggable::loggable;
use crate::wire::Operation;

/// A request, as far as a line of the log needs it; of a session, its first question.
#[derive(Debug)]
pub(super) struct LoggedRequest {
    pub(super) uid: Uid,
    client: Option<Pid>,
    queue: QueueId,
    operation: Operation,
    pub(super) path: PathBuf,
    session: bool,
}

impl LoggedRequest {
    pub(super) fn new(request: &Admitted<'_>) -> Self {
        Self {
            uid: request.caller.uid,
            client: request.client,
            queue: request.reply.queue.id(),
            operation: request.question.operation,
            path: request.question.path.to_owned(),
            session: request.session,
        }
    }

    /// Logs what happened to the child of this request, which did not write its line, or not yet.
    pub(super) fn log(&self, child: Pid, end: Option<ExitStatus>, what: &str) {
        let pid = child.as_raw();
        let (code, signal) = (end.and_then(|end| end.code()), end.and_then(|end| end.signal()));
        let (uid, client_pid) = (self.uid.as_raw(), self.client.map(Pid::as_raw));
        let (queue, operation) = (self.queue.get(), self.operation.name());
        let (path, session) = (loggable(&self.path), self.session);
        tracing::warn!(
            uid, client_pid, queue, operation, path, session, pid, code, signal, "{what}"
        );
    }
}

/// How much each user has added to the log since the last minute began. Without a limit, a user
/// could fill the disk, and push the lines of others out of a log that is rotated.
#[derive(Debug)]
pub(super) struct LogLimit {
    since: Instant,
    users: BTreeMap<u32, Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    bytes: usize,
    left_out: u64,
}

impl LogLimit {
    const WINDOW: Duration = Duration::from_secs(60);

    /// The most bytes of lines about one user's requests in that time: those of 14,000 requests
    /// with paths of usual length.
    const BYTES: usize = 4 << 20;

    pub(super) fn new() -> Self {
        Self { since: Instant::now(), users: BTreeMap::new() }
    }

    /// Whether a line about a request of this user may be logged. Counts the line.
    pub(super) fn admits(&mut self, uid: Uid, path: &Path) -> bool {
        /// Bytes of a line without its path, and the most that a path is cut to.
        const LINE: usize = 250;
        const LONGEST_PATH: usize = 3000;
        // A control character takes six bytes when it is escaped.
        let bytes = path.as_os_str().as_bytes().iter();
        let path: usize = bytes.map(|byte| if byte.is_ascii_graphic() { 1 } else { 6 }).sum();
        let usage = self.users.entry(uid.as_raw()).or_default();
        let line = LINE + path.min(LONGEST_PATH);
        let fits = usage.bytes + line <= Self::BYTES;
        match fits {
            true => usage.bytes += line,
            false => usage.left_out += 1,
        }
        fits
    }

    /// Whether lines were left out, and the log does not say so yet.
    pub(super) fn has_left_out(&self) -> bool {
        self.users.values().any(|usage| usage.left_out > 0)
    }

    /// Begins a new minute if it is time to. Says what was left out in the last one.
    pub(super) fn renew(&mut self) {
        if self.since.elapsed() >= Self::WINDOW {
            self.report();
        }
    }

    /// Says what was left out since the last minute began, and begins a new one.
    pub(super) fn report(&mut self) {
        self.since = Instant::now();
        for (uid, Usage { left_out: lines, .. }) in std::mem::take(&mut self.users) {
            if lines > 0 {
                tracing::warn!(uid, lines, "left out lines of a user who fills the log");
            }
        }
    }
}
