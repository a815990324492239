//! Takes the server lock, and keeps it.

use std::thread;
use std::time::Duration;

use sysv_ipc::{Acquire, Key, Lock, Mode, ProcessMark};

use super::{Attempt, removed, take_over};
use crate::ownership::liveness::no_such_process;
use crate::ownership::server_state::untrusted_user;
use crate::server::error::Error;
use crate::sys::{geteuid, getpid};

/// Every user can read the semaphore, and only its owner can take it.
const MODE: Mode = Mode::new(0o644);

/// The server lock, held. Dropping it removes the semaphore, in the process that took it and no
/// other.
pub(crate) struct ServerLock {
    key: Key,
    semaphore: Lock,
    owner: ProcessMark,
}

impl ServerLock {
    /// Takes the lock of a key. Root first removes a semaphore that another user made, also from
    /// under that user's server.
    pub(crate) fn take(key: Key) -> Result<Self, Error> {
        let mut tries = 20;
        take_over("server lock", key, || match Self::try_take(key) {
            // A server that is stopping removed it: the next attempt makes a new one.
            Err(Error::Ipc(error)) if error.is_gone() => Ok(Attempt::Retry),
            // A reaper may hold a dead server's lock while it removes it.
            Err(Error::AlreadyRunning { .. }) if tries > 0 => {
                tries -= 1;
                thread::sleep(Duration::from_millis(5));
                Ok(Attempt::Retry)
            }
            attempt => attempt,
        })
    }

    fn try_take(key: Key) -> Result<Attempt<Self>, Error> {
        // Open it without a mode first: semget refuses a semaphore that grants less than the mode.
        let semaphore = match Lock::open(key) {
            Err(error) if error.is_gone() => Lock::open_or_create(key, MODE)?,
            found => found?,
        };
        let status = semaphore.semaphores().status()?;
        let uid = status.permissions.cuid;
        let user = semaphore.last_pid().ok().flatten().filter(|&pid| !no_such_process(pid));
        let in_use = || match (semaphore.is_held(), user) {
            (Ok(true), Some(_)) => Error::AlreadyRunning { key, uid, pid: user },
            _ => Error::ForeignLock { key, uid },
        };
        if untrusted_user(&status.permissions, geteuid()).is_some() {
            if !geteuid().is_root() {
                return Err(in_use());
            }
            return Ok(removed(semaphore.remove(), &status.permissions, user)?);
        }
        match semaphore.try_acquire() {
            Ok(Acquire::Acquired) => {
                Ok(Attempt::Done(Self { key, semaphore, owner: ProcessMark::current() }))
            }
            Ok(Acquire::Held) => {
                Err(Error::AlreadyRunning { key, uid, pid: semaphore.last_pid()? })
            }
            Err(error) if error.is_denied() => Err(in_use()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the lock again if somebody removed the semaphore (`ipcrm -S`). Fails if another server
    /// was faster.
    pub(crate) fn retake_if_lost(&mut self) -> Result<(), Error> {
        if !self.is_held_by_us() {
            // The old lock must not run its destructor: its id may be another semaphore's by now.
            std::mem::forget(std::mem::replace(self, Self::take(self.key)?));
        }
        Ok(())
    }

    fn is_held_by_us(&self) -> bool {
        self.owner.is_current()
            && Lock::open(self.key).is_ok_and(|found| found == self.semaphore)
            && self.semaphore.is_held() == Ok(true)
            && self.semaphore.last_pid() == Ok(Some(getpid()))
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        // The id may be another semaphore's by now, or another server may hold it.
        if self.is_held_by_us() {
            let _ = self.semaphore.remove();
        }
    }
}
