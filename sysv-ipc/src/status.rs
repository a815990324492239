//! What the kernel knows of a queue: `struct msqid_ds` in types.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::{Gid, Pid, Uid};

use super::Key;

/// The nine permission bits of a System V object. The kernel looks at the r bits (receive, peek,
/// status) and the w bits (send); the x bits mean nothing to it.
///
/// ```
/// use sysv_ipc::Mode;
///
/// assert_eq!(Mode::new(0o622).to_string(), "0622");
/// assert!(Mode::new(0o733).contains(Mode::new(0o111)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode(u16);

impl Mode {
    /// A mode; bits above 0777 are dropped.
    pub const fn new(bits: u16) -> Self {
        Self(bits & 0o777)
    }

    /// The bits of an `ipc_perm`, whose mode is 16 bits wide on some architectures, 32 on others.
    pub(super) fn from_raw(raw: impl Into<u32>) -> Self {
        Self((raw.into() & 0o777) as u16)
    }

    /// The bits, at most 0777.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all the bits of `other` are set in this mode too.
    pub const fn contains(self, other: Mode) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Mode) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of this mode that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Mode) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({self})")
    }
}

/// Whose an object is, and who may use it: `struct ipc_perm`, svipc(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permissions {
    /// The key that the object was made under; [`Key::PRIVATE`] if none.
    pub key: Key,
    /// The owner. `IPC_SET` changes it.
    pub uid: Uid,
    /// The owner's group. `IPC_SET` changes it.
    pub gid: Gid,
    /// The effective user of the process that made the object. Never changes.
    pub cuid: Uid,
    /// The effective group of the process that made the object. Never changes.
    pub cgid: Gid,
    /// The permission bits. `IPC_SET` changes them.
    pub mode: Mode,
    /// Counts the objects that had this place in the kernel's table; a part of the id.
    pub seq: u32,
}

impl Permissions {
    pub(super) fn from_raw(raw: &libc::ipc_perm) -> Self {
        Self {
            key: Key::new(raw.__key),
            uid: Uid::from_raw(raw.uid),
            gid: Gid::from_raw(raw.gid),
            cuid: Uid::from_raw(raw.cuid),
            cgid: Gid::from_raw(raw.cgid),
            mode: Mode::from_raw(raw.mode),
            seq: u32::from(raw.__seq),
        }
    }
}

/// A snapshot of a queue, taken under the kernel's lock: all its fields belong together.
///
/// Source: msgctl(2), `struct msqid_ds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Whose the queue is, and who may use it.
    pub permissions: Permissions,
    /// Messages in the queue.
    pub messages: u64,
    /// Bytes of `mtext` in the queue.
    pub bytes: u64,
    /// The most bytes of `mtext` that it takes, `msg_qbytes`.
    pub max_bytes: u64,
    /// Who sent last. None if nobody did, or a process that this pid namespace cannot see.
    pub last_sender: Option<Pid>,
    /// Who received last; likewise. Can be the id of a thread.
    pub last_receiver: Option<Pid>,
    /// When a message was last sent. In whole seconds, by a clock that can be set, like all three.
    pub sent_at: Option<SystemTime>,
    /// When a message was last received.
    pub received_at: Option<SystemTime>,
    /// When it was made or last changed by `IPC_SET`.
    pub changed_at: SystemTime,
}

impl QueueStatus {
    pub(super) fn from_raw(raw: &libc::msqid_ds) -> Self {
        Self {
            permissions: Permissions::from_raw(&raw.msg_perm),
            messages: raw.msg_qnum,
            bytes: raw.__msg_cbytes,
            max_bytes: raw.msg_qbytes,
            last_sender: pid(raw.msg_lspid),
            last_receiver: pid(raw.msg_lrpid),
            sent_at: time(raw.msg_stime),
            received_at: time(raw.msg_rtime),
            changed_at: time(raw.msg_ctime).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// The part that [`Queue::set`](super::Queue::set) can change, as it is now.
    pub fn settings(&self) -> QueueSettings {
        let Permissions { uid, gid, mode, .. } = self.permissions;
        QueueSettings { uid, gid, mode, max_bytes: self.max_bytes }
    }
}

/// What `IPC_SET` changes: all four at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// The new owner. The creator keeps its rights beside it.
    pub uid: Uid,
    /// The new owner's group.
    pub gid: Gid,
    /// The permission bits.
    pub mode: Mode,
    /// `msg_qbytes`, in bytes. Above `kernel.msgmnb` it takes `CAP_SYS_RESOURCE`, even where the
    /// queue has that much already.
    pub max_bytes: u64,
}

fn pid(raw: libc::pid_t) -> Option<Pid> {
    (raw != 0).then(|| Pid::from_raw(raw))
}

fn time(raw: libc::time_t) -> Option<SystemTime> {
    let since = Duration::from_secs(u64::try_from(raw).ok().filter(|&seconds| seconds != 0)?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}
