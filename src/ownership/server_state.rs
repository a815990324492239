//! Whether a server runs: while it lives, it holds the server lock, a semaphore under its key.
//! Every client can look at it, in any pid namespace.

use sysv_ipc::{Error, Key, Lock, Permissions, Uid};

/// What the lock of a key says about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    Running,
    Dead,
    /// No trusted lock exists: no server was here, or one that takes no lock.
    NoLock,
}

impl ServerState {
    /// Reads the lock of a key, whose request queue belongs to `owner`.
    pub fn of(key: Key, owner: Uid) -> Self {
        let read = || {
            let semaphore = Lock::open(key)?;
            if untrusted_user(&semaphore.semaphores().status()?.permissions, owner).is_some() {
                return Ok(Self::NoLock);
            }
            let held = semaphore.is_held()?;
            Ok::<_, Error>(if held { Self::Running } else { Self::Dead })
        };
        read().unwrap_or(Self::NoLock)
    }
}

/// A user who may have made or changed the object, and is neither root nor the server's user.
pub(crate) fn untrusted_user(permissions: &Permissions, server: Uid) -> Option<Uid> {
    [permissions.uid, permissions.cuid].into_iter().find(|&uid| !uid.is_root() && uid != server)
}
