//! Removing what the dead leave besides queues: the lock and the counters of a killed server, and
//! the window of a child that was killed between making and removing it (`server::send`).

use sysv_ipc::{
    Acquire, Error, Key, Lock, Permissions, Queue, SharedMemory, SharedMemoryStatus, Uid,
    shared_memory_segments,
};

use super::policy::Policy;
use crate::counters::{self, Lookup};
use crate::ownership::liveness::Observer;
use crate::wire::WINDOW_MODE;

impl Policy {
    /// Removes the windows of dead children, and the locks and counters of dead servers whose
    /// request queue is gone. Returns how many semaphores and segments of shared memory. Fails if
    /// the segments cannot be listed.
    pub fn remove_leftovers(&self) -> Result<usize, Error> {
        let observer = Observer::here();
        let is_covered = |status: &SharedMemoryStatus| {
            let age = status.changed_at.elapsed().ok();
            self.uid.is_none_or(|uid| uid == status.permissions.cuid)
                && self.older_than.is_none_or(|least| age >= Some(least))
        };
        let remove = |(segment, status): (SharedMemory, SharedMemoryStatus)| {
            let Permissions { key, mode, uid, cuid, .. } = status.permissions;
            if is_left_window(&status, &observer) {
                // It may be gone by now, or not be ours.
                usize::from(segment.remove().is_ok())
            } else if (uid, mode) == (cuid, counters::MODE)
                && matches!(counters::read(key, Some(uid)), Ok(Lookup::Found(_)))
            {
                // The counters tell that the semaphore under their key is a server's lock.
                remove_lock_and_counters(key, uid)
            } else {
                0
            }
        };
        Ok(shared_memory_segments()?.filter(|(_, status)| is_covered(status)).map(remove).sum())
    }
}

/// Whether a segment is a window that nobody but its maker has attached, and its maker is dead. A
/// process in another pid namespace has no pid here: its window stays.
fn is_left_window(status: &SharedMemoryStatus, observer: &Observer) -> bool {
    let only_its_own = status.last_user.is_none() || status.last_user == status.creator;
    status.permissions.key.is_private()
        && status.permissions.mode == WINDOW_MODE
        && status.attached == 0
        && only_its_own
        && status.creator.is_some_and(|creator| observer.has_ended(creator))
}

/// Removes the lock and the counters of this user's server under a key, if that server is dead and
/// its request queue is gone: without the lock, nobody could prove the queue an orphan. Returns the
/// number of removed objects.
///
/// To hold the lock proves that no server does, and keeps a new one of this user from taking over
/// what is about to be removed. That one tries again (`ServerLock::take`).
pub(super) fn remove_lock_and_counters(key: Key, server: Uid) -> usize {
    let Ok(lock) = Lock::open(key) else { return 0 };
    let is_servers = lock.semaphores().status().is_ok_and(|status| {
        let Permissions { uid, cuid, .. } = status.permissions;
        (uid, cuid, status.count) == (server, server, 1)
    });
    if !is_servers || lock.try_acquire() != Ok(Acquire::Acquired) {
        return 0;
    }
    let mut removed = 0;
    if Queue::open(key).is_err_and(|error| error.is_gone()) {
        // With the lock, any marked segment of this user may be removed, as a new server does. It
        // holds no counters yet if its server was killed while it made the segment.
        let is_marked = |segment: &SharedMemory| {
            segment.status().is_ok_and(|status| {
                let Permissions { uid, cuid, mode, .. } = status.permissions;
                (uid, cuid, mode) == (server, server, counters::MODE)
            })
        };
        let left = SharedMemory::open(key).ok().filter(is_marked);
        removed += usize::from(left.is_some_and(|segment| segment.remove().is_ok()));
        removed += usize::from(lock.remove().is_ok());
    }
    let _ = lock.release(); // if it still exists
    removed
}
