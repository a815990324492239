use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::session::Session;

/// The idle sessions of a client, and what its sessions have learned. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    idle: Arc<Mutex<Vec<Session>>>,
    /// Whether a window could not be attached, so that no request allows one any more.
    pub(super) no_windows: Arc<AtomicBool>,
}

impl Pool {
    /// Each takes a queue, and a child of the server.
    const MAX_IDLE: usize = 8;

    /// How long to keep one. Servers end a session after 10 seconds, unless configured otherwise.
    const MAX_AGE: Duration = Duration::from_secs(5);

    /// Takes the session that was used last. In a forked child, drops those of its parent.
    pub(super) fn take(&self) -> Option<Session> {
        // Never wait: in a forked child, the thread that holds the lock may not exist.
        let mut idle = self.idle.try_lock().ok()?;
        while let Some(session) = idle.pop() {
            let age = session.inbox.received_at.elapsed();
            if age < Self::MAX_AGE && session.inbox.queue.is_usable() {
                return Some(session);
            }
        }
        None
    }

    pub(super) fn put(&self, session: Session) {
        if let Ok(mut idle) = self.idle.try_lock()
            && idle.len() < Self::MAX_IDLE
        {
            idle.push(session);
        }
    }
}
