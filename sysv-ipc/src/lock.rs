//! A lock that the kernel releases when its holder dies.

use crate::{Error, Key, Mode, Object, Operation, Pid, SemaphoreSet};

/// A semaphore as a lock between processes: 0 is free, 1 is held. The kernel releases it when its
/// holder ends, however it ends (`SEM_UNDO`). A forked child does not hold what its parent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock(SemaphoreSet);

/// How an attempt to take a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Acquire {
    /// The calling process holds it until it ends or somebody removes it.
    Acquired,
    /// Some process holds it, perhaps the caller.
    Held,
}

impl Lock {
    /// `semget(key, 1, 0)`: the lock under a key. Needs no permission.
    pub fn open(key: Key) -> Result<Self, Error> {
        SemaphoreSet::open(key).map(Self)
    }

    /// `semget(key, 1, IPC_CREAT | mode)`: the lock under a key, created if there is none.
    pub fn open_or_create(key: Key, mode: Mode) -> Result<Self, Error> {
        SemaphoreSet::open_or_create(key, 1, mode).map(Self)
    }

    /// `semop`: waits for zero and adds one, both or neither, with `IPC_NOWAIT` and `SEM_UNDO`.
    pub fn try_acquire(self) -> Result<Acquire, Error> {
        let operations = [Operation::wait_for_zero(0), Operation::add(0, 1).undo()];
        let done = self.try_operate(&operations)?;
        Ok(if done { Acquire::Acquired } else { Acquire::Held })
    }

    /// `semop`: subtracts one, with `IPC_NOWAIT` and `SEM_UNDO`. Does nothing to a lock that is
    /// free. Only the holder may call this; the kernel does not check.
    pub fn release(self) -> Result<(), Error> {
        self.try_operate(&[Operation::subtract(0, 1).undo()]).map(drop)
    }

    /// Whether the operations were performed; not if they would wait.
    fn try_operate(self, operations: &[Operation]) -> Result<bool, Error> {
        match self.0.perform(operations, libc::IPC_NOWAIT, None) {
            Ok(()) => Ok(true),
            Err(libc::EAGAIN) => Ok(false),
            Err(errno) => Err(Error::new("semop", Object::SemaphoreSet(self.0.id()), errno)),
        }
    }

    /// `semctl(GETVAL)`: whether some process holds the lock. Needs read permission.
    pub fn is_held(self) -> Result<bool, Error> {
        self.0.value(0).map(|value| value != 0)
    }

    /// `semctl(GETPID)`: the process that took or lost it last. See [`SemaphoreSet::last_pid`].
    pub fn last_pid(self) -> Result<Option<Pid>, Error> {
        self.0.last_pid(0)
    }

    /// The semaphore set, with the one semaphore at index 0.
    pub const fn semaphores(self) -> SemaphoreSet {
        self.0
    }

    /// Removes the lock, whoever holds it.
    pub fn remove(self) -> Result<(), Error> {
        self.0.remove()
    }
}
