//! The server lock: whoever holds the semaphore under a key is the server of that key.
//!
//! A new semaphore is 0, so there is no initialisation race; the kernel takes the 1 back when the
//! holder dies, however it dies; forked children do not inherit it; every client, in whatever pid
//! namespace, can ask. A semaphore made by a uid that is not trusted counts for nothing.

use crate::sys::{geteuid, getpid};
use sysv_ipc::{Pid, Uid};

use sysv_ipc::{Acquire, Error, Key, Lock, Mode};

/// Anyone may ask, only the owner may take.
const MODE: Mode = Mode::new(0o644);

/// The lock, held. Dropping it removes the semaphore, in the process that took it and no other.
#[derive(Debug)]
pub struct ServerLock {
    key: Key,
    semaphore: Lock,
    holder: Pid,
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another server holds it.
    #[error("key {key} is in use: a server runs there already{}", with_pid(*pid))]
    Held {
        /// The key.
        key: Key,
        /// The server; None where this pid namespace cannot see it.
        pid: Option<Pid>,
    },
    /// Somebody else made the semaphore.
    #[error("key {key} is in use: its semaphore belongs to {} (as root: ipcrm -S {key})", user(*uid))]
    Foreign {
        /// The key.
        key: Key,
        /// Who made it; None where that cannot be read.
        uid: Option<Uid>,
    },
    /// A call failed.
    #[error(transparent)]
    Os(#[from] Error),
}

fn with_pid(pid: Option<Pid>) -> String {
    pid.map_or_else(String::new, |pid| format!(", pid {pid}"))
}

fn user(uid: Option<Uid>) -> String {
    uid.map_or_else(|| "another user".to_owned(), |uid| format!("uid {uid}"))
}

impl ServerLock {
    /// Takes the lock of a key.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(key: Key) -> Result<Self, LockError> {
        let mut removed = 0;
        loop {
            match Self::try_take(key) {
                Ok(Some(lock)) => {
                    // Said once: whoever made it may make it again as fast as it goes.
                    if removed > 0 {
                        tracing::warn!(%key, removed, "removed foreign semaphores");
                    }
                    return Ok(lock);
                }
                Ok(None) => removed += 1,
                // Removed under our hands, by a server that stops: there will be a new one.
                Err(LockError::Os(error)) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// None: a foreign semaphore was in the way, and is not any more.
    fn try_take(key: Key) -> Result<Option<Self>, LockError> {
        // Looked up with no flags first: with a mode, semget refuses one that grants less.
        let semaphore = match Lock::open(key) {
            Err(error) if error.is_gone() => Lock::open_or_create(key, MODE)?,
            found => found?,
        };
        let status = match semaphore.status() {
            Err(error) if error.is_denied() => return Err(LockError::Foreign { key, uid: None }),
            status => status?,
        };
        if !is_trusted(status.permissions.uid, geteuid())
            || !is_trusted(status.permissions.cuid, geteuid())
        {
            if !geteuid().is_root() {
                return Err(LockError::Foreign { key, uid: Some(status.permissions.cuid) });
            }
            semaphore.remove()?;
            return Ok(None);
        }
        match semaphore.try_acquire() {
            Ok(Acquire::Acquired) => Ok(Some(Self { key, semaphore, holder: getpid() })),
            Ok(Acquire::Held) => Err(LockError::Held { key, pid: semaphore.last_pid()? }),
            Err(error) if error.is_denied() => {
                Err(LockError::Foreign { key, uid: Some(status.permissions.cuid) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that the lock is still held: somebody may have removed the semaphore (`ipcrm -S`).
    /// Takes it again then, unless another server was faster.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn hold_on(&mut self) -> Result<(), LockError> {
        if !self.is_held_by_us() {
            std::mem::forget(std::mem::replace(self, Self::take(self.key)?));
        }
        Ok(())
    }

    fn is_held_by_us(&self) -> bool {
        let same = |found: Lock| found == self.semaphore;
        Lock::open(self.key).is_ok_and(same)
            && self.semaphore.is_held() == Ok(true)
            && self.semaphore.last_pid() == Ok(Some(self.holder))
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        // Not what has come in its place: the id may be another's by now.
        if getpid() == self.holder && self.is_held_by_us() {
            let _ = self.semaphore.remove();
        }
    }
}

/// What the lock of a key says of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Somebody holds the lock.
    Running,
    /// There is a lock, and nobody holds it.
    Dead,
    /// There is no lock that counts: no server was here, or one that takes none.
    NoLock,
}

/// Asks the lock of a key, whose request queue belongs to `owner`.
pub fn server_state(key: Key, owner: Uid) -> ServerState {
    let ask = || {
        let semaphore = Lock::open(key)?;
        let status = semaphore.status()?;
        if !is_trusted(status.permissions.uid, owner) || !is_trusted(status.permissions.cuid, owner)
        {
            return Ok(ServerState::NoLock);
        }
        let held = semaphore.is_held()?;
        Ok::<_, Error>(if held { ServerState::Running } else { ServerState::Dead })
    };
    ask().unwrap_or(ServerState::NoLock)
}

fn is_trusted(uid: Uid, server: Uid) -> bool {
    uid.is_root() || uid == server
}
