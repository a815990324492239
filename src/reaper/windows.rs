//! Removing the windows of children that were killed while they made them.
//!
//! A child makes a segment, attaches it and removes it, in calls that follow each other at once
//! (`server::send`). A process that is killed between them leaves it.

use std::time::Duration;

use sysv_ipc::{Error, SharedMemoryStatus, shared_memory_segments};

use super::policy::Policy;
use crate::ownership::liveness::Observer;
use crate::wire::WINDOW_MODE;

impl Policy {
    /// Removes the windows that dead processes left. Returns how many.
    ///
    /// # Errors
    /// The segments cannot be listed.
    pub fn remove_windows(&self) -> Result<usize, Error> {
        let observer = Observer::here();
        let left = shared_memory_segments()?
            .filter(|(_, status)| self.uid.is_none_or(|uid| uid == status.permissions.cuid))
            .filter(|(_, status)| self.older_than.is_none_or(|least| age(status) >= Some(least)))
            .filter(|(_, status)| is_left(status, &observer));
        // It may be gone by now, or not be ours.
        Ok(left.filter(|(segment, _)| segment.remove().is_ok()).count())
    }
}

/// How long ago it was made or changed.
fn age(status: &SharedMemoryStatus) -> Option<Duration> {
    status.changed_at.elapsed().ok()
}

/// Whether a segment is a window that nobody but its maker has attached, and its maker is dead. A
/// process in another pid namespace has no pid here: its window stays.
fn is_left(status: &SharedMemoryStatus, observer: &Observer) -> bool {
    let only_its_own = status.last_user.is_none() || status.last_user == status.creator;
    status.permissions.key.is_private()
        && status.permissions.mode == WINDOW_MODE
        && status.attached == 0
        && only_its_own
        && status.creator.is_some_and(|creator| observer.has_ended(creator))
}
