//! Lists of all objects of a kind.

use std::marker::PhantomData;

use libc::c_int;

use crate::limits::last_index_and_usage;
use crate::{Error, IpcObject, Queue, SemaphoreSet, SharedMemory, syscalls};

/// `MSG_STAT_ANY`: every queue of this IPC namespace with its status, whoever may read it.
///
/// An object that appears or vanishes meanwhile may be missing; none is listed twice.
///
/// ```
/// use sysv_ipc::{Mode, OwnedQueue, queues};
///
/// let mine = OwnedQueue::private(Mode::new(0o600))?;
/// assert!(queues()?.any(|(queue, status)| queue == *mine && status.messages == 0));
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
pub fn queues() -> Result<Objects<Queue>, Error> {
    Objects::new()
}

/// `SEM_STAT_ANY`: every semaphore set of this IPC namespace with its status. See [`queues`].
pub fn semaphore_sets() -> Result<Objects<SemaphoreSet>, Error> {
    Objects::new()
}

/// `SHM_STAT_ANY`: every segment of shared memory of this IPC namespace with its status. See
/// [`queues`].
pub fn shared_memory_segments() -> Result<Objects<SharedMemory>, Error> {
    Objects::new()
}

/// An iterator over all objects of a kind, made by [`queues`], [`semaphore_sets`] and
/// [`shared_memory_segments`].
#[derive(Debug)]
pub struct Objects<T> {
    next: c_int,
    last: c_int,
    kind: PhantomData<T>,
}

impl<T: IpcObject> Objects<T> {
    fn new() -> Result<Self, Error> {
        let (last, _) = last_index_and_usage::<T::Kind>()?;
        Ok(Self { next: 0, last, kind: PhantomData })
    }
}

impl<T: IpcObject> Iterator for Objects<T> {
    type Item = (T, T::Status);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next <= self.last {
            let index = self.next;
            self.next += 1;
            // Fails for an index that is not in use.
            if let Ok((id, raw)) = syscalls::stat_any::<T::Kind>(index) {
                return Some((T::from_raw_id(id), T::read_status(&raw)));
            }
        }
        None
    }
}
