//! Sessions that nobody uses at the moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::session::Session;

/// The idle sessions of a client. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Session>>>);

impl Pool {
    /// The most sessions to keep. Each takes a queue, and a child of the server.
    const MAX_IDLE: usize = 8;

    /// How long to keep one. Servers end a session after 10 seconds, unless configured otherwise.
    const MAX_AGE: Duration = Duration::from_secs(5);

    /// Takes the session that was used last. In a forked child, drops those of its parent.
    pub(super) fn take(&self) -> Option<Session> {
        // Never wait: in a forked child, the thread that holds the lock may not exist.
        let mut idle = self.0.try_lock().ok()?;
        while let Some(session) = idle.pop() {
            if session.is_fresh(Self::MAX_AGE) {
                return Some(session);
            }
        }
        None
    }

    /// Keeps a session, unless there are enough.
    pub(super) fn put(&self, session: Session) {
        if let Ok(mut idle) = self.0.try_lock()
            && idle.len() < Self::MAX_IDLE
        {
            idle.push(session);
        }
    }
}
