use std::time::Duration;

use sysv_ipc::Uid;

/// Which queues to look at, and which orphans to spare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    pub(super) older_than: Option<Duration>,
    pub(super) uid: Option<Uid>,
    pub(super) foreign: bool,
}

impl Policy {
    /// Looks at every queue, and spares no orphan that mqfs made.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spares orphans that were made, changed or used within this time: their verdict is
    /// [`Recent`](super::Verdict::Recent).
    #[must_use]
    pub fn older_than(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.older_than = age.into();
        self
    }

    /// Looks only at queues that this user made.
    #[must_use]
    pub fn uid(mut self, uid: impl Into<Option<Uid>>) -> Self {
        self.uid = uid.into();
        self
    }

    /// Includes queues that mqfs did not make. Such a queue is an orphan if it has no key, no other
    /// user may use it, its last sender and its last receiver are known and dead, no process waits
    /// on it, and nobody used it for an hour, or [`older_than`](Self::older_than). That is evidence
    /// and no proof: a program may keep such a queue without using it, and the last receiver can be
    /// a thread that ended before its process.
    #[must_use]
    pub fn foreign(mut self, include: bool) -> Self {
        self.foreign = include;
        self
    }
}
