//! Semaphore sets.

use std::time::{Duration, SystemTime};

use libc::c_int;

use crate::limits::count;
use crate::memory::semctl_all;
use crate::object::{self, Id, ipc_object, object_status};
use crate::permissions::time;
use crate::syscalls::{self, Errno};
use crate::{Error, Key, Mode, OperateError, Permissions, Pid, SemaphoreId, Settings};

/// A set of semaphores, named by its id. Copying or dropping this does nothing to the set.
///
/// A semaphore is a number from 0 to 32,767. On Linux a new one is 0 (semget(2)), so a set needs
/// no initialisation that could race.
///
/// ```
/// use sysv_ipc::{Key, Mode, Operation, Owned, SemaphoreSet};
///
/// // Two semaphores: free places, and things to fetch.
/// let set = Owned::new(SemaphoreSet::create(Key::PRIVATE, 2, Mode::new(0o600))?);
/// set.set_values(&[3, 0])?;
/// // Both or none: take a place, and add a thing.
/// set.operate(&[Operation::subtract(0, 1), Operation::add(1, 1)])?;
/// assert_eq!(set.values()?, [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SemaphoreSet(SemaphoreId);

/// An operation on one semaphore of a set: `struct sembuf`, semop(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    index: u16,
    change: i16,
    flags: c_int,
}

impl Operation {
    /// Adds to the semaphore at an index. Never waits. Panics if `amount` is not from 1 to 32,767.
    pub const fn add(index: u16, amount: u16) -> Self {
        assert!(amount >= 1 && amount <= i16::MAX as u16, "not from 1 to 32,767");
        Self { index, change: amount as i16, flags: 0 }
    }

    /// Subtracts, once the value is at least `amount`. Panics as [`add`](Self::add) does.
    pub const fn subtract(index: u16, amount: u16) -> Self {
        let add = Self::add(index, amount);
        Self { change: -add.change, ..add }
    }

    /// Waits until the semaphore at an index is zero.
    pub const fn wait_for_zero(index: u16) -> Self {
        Self { index, change: 0, flags: 0 }
    }

    /// `SEM_UNDO`: the kernel takes the change back when the process ends, however it ends.
    /// Children do not inherit this; exec keeps it.
    #[must_use]
    pub const fn undo(self) -> Self {
        Self { flags: self.flags | libc::SEM_UNDO, ..self }
    }
}

impl SemaphoreSet {
    /// `semop(id, operations, n)`: performs all operations at once, waiting until that is possible.
    /// An empty slice does nothing. `EFBIG`: an index is beyond the set. `ERANGE`: a value would
    /// exceed 32,767. `E2BIG`: there are more than [`semopm`](crate::SemaphoreLimits::semopm).
    pub fn operate(self, operations: &[Operation]) -> Result<(), OperateError> {
        self.operate_with(operations, 0, None)
    }

    /// `semop(id, operations, n)`, each with `IPC_NOWAIT`: performs all if that is possible now.
    pub fn try_operate(self, operations: &[Operation]) -> Result<(), OperateError> {
        self.operate_with(operations, libc::IPC_NOWAIT, None)
    }

    /// `semtimedop(id, operations, n, timeout)`: performs all operations at once, waiting until
    /// that is possible, but no longer than `timeout`.
    pub fn operate_for(
        self,
        operations: &[Operation],
        timeout: Duration,
    ) -> Result<(), OperateError> {
        self.operate_with(operations, 0, Some(timeout))
    }

    fn operate_with(
        self,
        operations: &[Operation],
        flags: c_int,
        timeout: Option<Duration>,
    ) -> Result<(), OperateError> {
        self.perform(operations, flags, timeout).map_err(|errno| match errno {
            libc::EIDRM | libc::EINVAL => OperateError::Gone,
            libc::EAGAIN if timeout.is_some() => OperateError::TimedOut,
            libc::EAGAIN => OperateError::WouldBlock,
            libc::EINTR => OperateError::Interrupted,
            errno => OperateError::Os(self.error("semop", errno)),
        })
    }

    pub(crate) fn perform(
        self,
        operations: &[Operation],
        flags: c_int,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let as_raw = |operation: &Operation| libc::sembuf {
            sem_num: operation.index,
            sem_op: operation.change,
            sem_flg: (operation.flags | flags) as i16,
        };
        let mut raw: Vec<libc::sembuf> = operations.iter().map(as_raw).collect();
        // The kernel answers no operations with EINVAL, which would read as a set that is gone.
        if raw.is_empty() { Ok(()) } else { syscalls::semop(self.0.get(), &mut raw, timeout) }
    }

    /// `semctl(id, index, GETVAL)`: the value of one semaphore. Needs read permission. A semaphore
    /// beyond the set is [gone](Error::is_gone) too.
    pub fn value(self, index: u16) -> Result<u16, Error> {
        self.one(index, libc::GETVAL, 0).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
    }

    /// `semctl(id, 0, GETALL)`: the values of all semaphores at one moment. Needs read permission.
    pub fn values(self) -> Result<Vec<u16>, Error> {
        let mut values = vec![0; self.status()?.count];
        semctl_all(self.0.get(), libc::GETALL, &mut values).map_err(|errno| self.failed(errno))?;
        Ok(values)
    }

    /// `semctl(id, index, SETVAL)`: sets one semaphore, and forgets what all processes would have
    /// [undone](Operation::undo). Needs write permission. `ERANGE`: the value is above 32,767.
    pub fn set_value(self, index: u16, value: u16) -> Result<(), Error> {
        self.one(index, libc::SETVAL, value).map(drop)
    }

    /// `semctl(id, 0, SETALL)`: sets all semaphores at once, and forgets what all processes would
    /// have [undone](Operation::undo). Needs write permission. `ERANGE`: a value is above 32,767,
    /// or there are more or fewer values than semaphores.
    pub fn set_values(self, values: &[u16]) -> Result<(), Error> {
        if values.len() != self.status()?.count {
            return Err(self.failed(libc::ERANGE));
        }
        semctl_all(self.0.get(), libc::SETALL, &mut values.to_vec())
            .map_err(|errno| self.failed(errno))
    }

    /// `semctl(id, index, GETPID)`: the process that last changed the semaphore, or had a change
    /// undone. None if none did, or if this pid namespace cannot see it.
    pub fn last_pid(self, index: u16) -> Result<Option<Pid>, Error> {
        self.one(index, libc::GETPID, 0).map(Pid::known)
    }

    /// `semctl(id, index, GETNCNT)`: how many processes wait for the semaphore to grow.
    pub fn waiting_for_more(self, index: u16) -> Result<usize, Error> {
        self.one(index, libc::GETNCNT, 0).map(count)
    }

    /// `semctl(id, index, GETZCNT)`: how many processes wait for the semaphore to become zero.
    pub fn waiting_for_zero(self, index: u16) -> Result<usize, Error> {
        self.one(index, libc::GETZCNT, 0).map(count)
    }

    fn one(self, index: u16, command: c_int, value: u16) -> Result<c_int, Error> {
        syscalls::semctl_one(self.0.get(), index, command, value)
            .map_err(|errno| self.failed(errno))
    }

    fn failed(self, errno: Errno) -> Error {
        self.error("semctl", errno)
    }

    /// `semctl(id, 0, IPC_SET)`: changes owner, group and mode.
    pub fn set(self, settings: &Settings) -> Result<(), Error> {
        object::set(self, |raw| settings.write_to(&mut raw.sem_perm))
    }
}

ipc_object!(SemaphoreSet(SemaphoreId), SemaphoreStatus, semget(count: u16), semctl);

object_status! {
    /// What the kernel tells about a semaphore set: `struct semid_ds`, semctl(2).
    SemaphoreSet: SemaphoreStatus from raw: libc::semid_ds {
        /// Owner, creator, key and mode.
        permissions: Permissions = Permissions::from_raw(&raw.sem_perm),
        /// How many semaphores it has.
        count: usize = count(raw.sem_nsems),
        /// When `semop` last changed it, in whole seconds.
        operated_at: Option<SystemTime> = time(raw.sem_otime),
        /// When the set was created or last changed by `semctl`, in whole seconds.
        changed_at: SystemTime = time(raw.sem_ctime).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}
