//! Objects that are removed when they go out of scope.

use std::ops::Deref;

use crate::{Error, Key, Mode, ProcessMark, Queue};

/// An object of System V IPC, named by its id: a [`Queue`], a semaphore set or shared memory.
///
/// The handles are copied freely and own nothing; [`Owned`] does. Nobody else can implement this.
pub trait IpcObject: Copy + sealed::Sealed {
    /// `msgctl`, `semctl` or `shmctl` with `IPC_RMID`: removes the object.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged.
    /// [Gone](Error::is_gone): there is no such object.
    fn remove(self) -> Result<(), Error>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// An object that is removed when this goes out of scope, but only in the process that made this:
/// a forked child that drops its copy removes nothing. See [`ProcessMark`].
///
/// ```
/// use sysv_ipc::{Key, Mode, Owned, Queue};
///
/// let queue = Owned::new(Queue::create(Key::PRIVATE, Mode::new(0o600))?);
/// let handle = *queue;
/// drop(queue);
/// assert!(handle.status().unwrap_err().is_gone());
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
///
/// Nothing is removed if the process dies without running destructors; reapers, and the
/// `remove`-while-attached of shared memory, exist for that.
#[derive(Debug)]
pub struct Owned<T: IpcObject> {
    object: T,
    owner: ProcessMark,
}

impl<T: IpcObject> Owned<T> {
    /// Makes the calling process the owner.
    pub fn new(object: T) -> Self {
        Self { object, owner: ProcessMark::current() }
    }

    /// Gives up ownership without removing the object.
    pub fn release(self) -> T {
        let object = self.object;
        std::mem::forget(self);
        object
    }
}

impl<T: IpcObject> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: IpcObject> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.owner.is_current() {
            // Fails if somebody else removed it already, which is as good.
            let _ = self.object.remove();
        }
    }
}

/// A queue that is removed when this goes out of scope.
pub type OwnedQueue = Owned<Queue>;

impl Owned<Queue> {
    /// A new queue under `IPC_PRIVATE`, which no key finds.
    ///
    /// # Errors
    /// As for [`Queue::create`].
    pub fn private(mode: Mode) -> Result<Self, Error> {
        Self::create(Key::PRIVATE, mode)
    }

    /// A new queue under a key.
    ///
    /// # Errors
    /// As for [`Queue::create`].
    pub fn create(key: Key, mode: Mode) -> Result<Self, Error> {
        Queue::create(key, mode).map(Self::new)
    }
}
