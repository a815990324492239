//! A semaphore as a lock that the kernel releases when its holder dies, however it dies.

use crate::Pid;
use nix::errno::Errno;

use super::{Error, IpcObject, Key, Mode, Object, Permissions, owned::sealed, syscalls};

/// A set of one semaphore, used as a lock: 0 is free, 1 is held.
///
/// A new semaphore is 0, so nobody must initialise it, and no race is lost between making and
/// initialising. Children do not inherit what the kernel will take back (semop(2), `SEM_UNDO`).
///
/// ```
/// use sysv_ipc::{Acquire, Key, Mode, Pid, Lock};
///
/// let lock = Lock::open_or_create(Key::PRIVATE, Mode::new(0o644))?;
/// assert!(matches!(lock.try_acquire()?, Acquire::Acquired));
/// assert!(lock.is_held()?);
/// assert_eq!(lock.last_pid()?, Some(Pid::current()));
/// assert!(matches!(lock.try_acquire()?, Acquire::Held));
/// lock.remove()?;
/// assert!(lock.is_held().unwrap_err().is_gone());
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock(libc::c_int);

/// How an attempt to take the lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Acquire {
    /// It is the caller's until it dies or removes the semaphore.
    Acquired,
    /// Somebody has it.
    Held,
}

/// Who a semaphore belongs to. Source: `semctl(IPC_STAT)`, semctl(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStatus {
    /// Whose the semaphore is, and who may use it.
    pub permissions: Permissions,
}

impl Lock {
    /// `semget(key, 1, 0)`: the semaphore under a key.
    ///
    /// # Errors
    /// [Gone](Error::is_gone) (`ENOENT`): there is none.
    pub fn open(key: Key) -> Result<Self, Error> {
        Self::get(key, 0)
    }

    /// `semget(key, 1, IPC_CREAT | mode)`: the semaphore under a key, made if there was none.
    ///
    /// # Errors
    /// `EACCES`: there is one, whose mode does not let the caller do what `mode` says.
    /// `ENOSPC`: the namespace has no semaphore left.
    pub fn open_or_create(key: Key, mode: Mode) -> Result<Self, Error> {
        Self::get(key, libc::IPC_CREAT | libc::c_int::from(mode.bits()))
    }

    fn get(key: Key, flags: libc::c_int) -> Result<Self, Error> {
        syscalls::semget(key.as_raw(), 1, flags)
            .map(Self)
            .map_err(|errno| Error::new("semget", Object::Key(key), errno))
    }

    /// `semop`: waits for zero and adds one, both or neither, without waiting, with `SEM_UNDO`.
    ///
    /// # Errors
    /// [Gone](Error::is_gone): it was removed. `EACCES`: the mode does not let the caller.
    pub fn try_acquire(self) -> Result<Acquire, Error> {
        let free = syscalls::operation(0, libc::IPC_NOWAIT);
        let take = syscalls::operation(1, libc::IPC_NOWAIT | libc::SEM_UNDO);
        match syscalls::semop(self.0, [free, take]) {
            Ok(()) => Ok(Acquire::Acquired),
            Err(Errno::EAGAIN) => Ok(Acquire::Held),
            Err(errno) => Err(self.error("semop", errno)),
        }
    }

    /// `semctl(GETVAL)`: whether somebody has the lock. Takes read permission only.
    ///
    /// # Errors
    /// [Gone](Error::is_gone): it was removed. `EACCES`: the mode does not let the caller.
    pub fn is_held(self) -> Result<bool, Error> {
        let value = syscalls::semctl_get(self.0, libc::GETVAL)
            .map_err(|errno| self.error("semctl", errno))?;
        Ok(value != 0)
    }

    /// `semctl(GETPID)`: who took or lost the lock last; None if nobody did, or a process that
    /// this pid namespace cannot see.
    ///
    /// # Errors
    /// As for [`is_held`](Self::is_held).
    pub fn last_pid(self) -> Result<Option<Pid>, Error> {
        let pid = syscalls::semctl_get(self.0, libc::GETPID)
            .map_err(|errno| self.error("semctl", errno))?;
        Ok((pid != 0).then(|| Pid::from_raw(pid)))
    }

    /// `semctl(IPC_STAT)`: who it belongs to. Takes read permission.
    ///
    /// # Errors
    /// As for [`is_held`](Self::is_held).
    pub fn status(self) -> Result<SemaphoreStatus, Error> {
        let raw = syscalls::semctl_stat(self.0).map_err(|errno| self.error("semctl", errno))?;
        Ok(SemaphoreStatus { permissions: Permissions::from_raw(&raw.sem_perm) })
    }

    /// `semctl(IPC_RMID)`: removes it, whoever holds it.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged.
    /// [Gone](Error::is_gone): there is no such semaphore.
    pub fn remove(self) -> Result<(), Error> {
        syscalls::semctl_remove(self.0).map_err(|errno| self.error("semctl", errno))
    }

    fn error(self, call: &'static str, errno: Errno) -> Error {
        Error::new(call, Object::Semaphore(self.0), errno)
    }
}

impl sealed::Sealed for Lock {}

impl IpcObject for Lock {
    fn remove(self) -> Result<(), Error> {
        Lock::remove(self)
    }
}
