//! Why there is no server.

use std::path::PathBuf;

use nix::errno::Errno;
use sysv_ipc::Uid;

use crate::ownership::server_lock::LockError;
use sysv_ipc::{self, Key, Mode, QueueId};

/// Why a server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A queue stands under the key that may not be removed.
    #[error(
        "key {key} is in use: queue {queue} is another program's ({why}); \
         if nothing needs it, remove it: ipcrm -Q {key}"
    )]
    KeyInUse {
        /// The key.
        key: Key,
        /// The queue under it.
        queue: QueueId,
        /// What is known of it.
        why: String,
    },
    /// The mode lets others read requests, or the server not.
    #[error("mode {mode}: it must be 0600, 0620, 0602 or 0622: only the server may read requests")]
    Mode {
        /// The mode.
        mode: Mode,
    },
    /// Others may ask, and nobody said what for.
    #[error(
        "mode {mode} lets others ask, and they get whatever uid {uid} may read: \
         say with --root what that is (--root / for everything)"
    )]
    RootNotGiven {
        /// The mode.
        mode: Mode,
        /// The server's user.
        uid: Uid,
    },
    /// The root cannot be served.
    #[error("root {}: {errno}", crate::escape::escape(.root))]
    Root {
        /// The root.
        root: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// There is no /proc, by way of which files are opened.
    #[error("/proc is not mounted here: mount -t proc proc /proc")]
    NoProc,
    /// The namespace has no queue left (`ENOSPC`).
    #[error("{0} (mqfs-reap removes orphaned queues; raising kernel.msgmni makes room)")]
    NoQueueLeft(sysv_ipc::Error),
    /// A call on the queue failed.
    #[error(transparent)]
    Ipc(#[from] sysv_ipc::Error),
    /// Another call failed.
    #[error("{call}: {errno}")]
    Os {
        /// The call.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
}
