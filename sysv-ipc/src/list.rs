//! Lists of all objects of a kind.

use crate::limits::namespace_error;
use crate::{
    Error, IpcObject, Queue, QueueStatus, SemaphoreSet, SemaphoreStatus, SharedMemory,
    SharedMemoryStatus, syscalls,
};

/// `MSG_STAT_ANY`: every queue of this IPC namespace with its status, whoever may read it.
///
/// An object that appears or vanishes meanwhile may be missing; none is listed twice.
pub fn queues() -> Result<impl Iterator<Item = (Queue, QueueStatus)>, Error> {
    objects()
}

/// `SEM_STAT_ANY`: every semaphore set of this IPC namespace with its status. See [`queues`].
pub fn semaphore_sets() -> Result<impl Iterator<Item = (SemaphoreSet, SemaphoreStatus)>, Error> {
    objects()
}

/// `SHM_STAT_ANY`: every segment of shared memory of this IPC namespace with its status. See
/// [`queues`].
pub fn shared_memory_segments()
-> Result<impl Iterator<Item = (SharedMemory, SharedMemoryStatus)>, Error> {
    objects()
}

fn objects<T: IpcObject>() -> Result<impl Iterator<Item = (T, T::Status)>, Error> {
    let (last, _) = syscalls::usage::<T>().map_err(namespace_error::<T>)?;
    // The call fails for an index that is not in use.
    Ok((0..=last).filter_map(|index| {
        let (id, raw) = syscalls::stat_any::<T>(index).ok()?;
        Some((T::from_raw_id(id), T::read_status(&raw)))
    }))
}
