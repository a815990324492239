//! The errors of a server.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use sysv_ipc::{Key, Mode, Pid, QueueId, Uid};

use crate::escape::escape;

/// Why a server did not start, or could not continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // of the fields: their names say what they are
pub enum Error {
    /// A server of this user holds the lock of the key. Without a pid: it cannot be seen from here.
    #[error("key {key} is in use: a server of uid {uid} runs there already{}", with_pid(*pid))]
    AlreadyRunning { key: Key, uid: Uid, pid: Option<Pid> },
    /// Another user made the semaphore that is the lock of the key, and it is not known to be held.
    #[error("key {key} is in use: its semaphore belongs to uid {uid}")]
    ForeignLock { key: Key, uid: Uid },
    /// The queue under the key may belong to another program.
    #[error("key {key} is in use: queue {queue} of uid {uid} is another program's ({why})")]
    ForeignQueue { key: Key, queue: QueueId, uid: Uid, why: String },
    /// The mode lets other users read requests, or keeps the server from reading them.
    #[error("mode {mode}: it must be 0600, 0620, 0602 or 0622: only the server may read requests")]
    Mode { mode: Mode },
    /// The mode lets other users send requests, and the configuration names no root.
    #[error("mode {mode} lets others ask, and they get whatever uid {uid} may read")]
    RootNotGiven { mode: Mode, uid: Uid },
    /// The root cannot be opened.
    #[error("root {}", escape(.root))]
    Root { root: PathBuf, source: io::Error },
    /// The kernel has no openat2(2), which keeps paths below the root, or a filter denies it.
    #[error("the system call openat2 is not available here")]
    NoOpenat2 { source: io::Error },
    /// /proc is not mounted. The server opens files by way of it.
    #[error("/proc is not mounted here")]
    NoProc,
    /// The IPC namespace has no queue left (`ENOSPC`).
    #[error(transparent)]
    NoQueueLeft(sysv_ipc::Error),
    /// A System V IPC call failed.
    #[error(transparent)]
    Ipc(#[from] sysv_ipc::Error),
    /// Another system call failed.
    #[error("{call}")]
    Os { call: &'static str, source: io::Error },
}

impl Error {
    /// Names the system call that failed, for `map_err`.
    pub(super) fn os(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os { call, source: errno.into() }
    }
}

fn with_pid(pid: Option<Pid>) -> String {
    pid.map_or_else(String::new, |pid| format!(", pid {pid}"))
}
