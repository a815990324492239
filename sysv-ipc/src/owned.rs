//! Owners, which remove their object when they are dropped.

use std::ops::Deref;

use crate::{Error, IpcObject, Key, Mode, ProcessMark, Queue, object};

/// An object that is removed when this goes out of scope, but only in the process that made this:
/// a forked child that drops its copy removes nothing ([`ProcessMark`]). Nothing is removed if the
/// process dies without running destructors.
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
            let _ = object::remove(self.object);
        }
    }
}

/// A queue that is removed when this goes out of scope.
pub type OwnedQueue = Owned<Queue>;

impl Owned<Queue> {
    /// A new queue under `IPC_PRIVATE`, which no key finds.
    pub fn private(mode: Mode) -> Result<Self, Error> {
        Self::create(Key::PRIVATE, mode)
    }

    /// A new queue under a key.
    pub fn create(key: Key, mode: Mode) -> Result<Self, Error> {
        Queue::create(key, mode).map(Self::new)
    }
}
