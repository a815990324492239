//! Whose an object is, and who may use it: the same for all three kinds.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::{Gid, Key, Uid};

/// The nine permission bits of an object, svipc(7). The x bits have no meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode(u16);

impl Mode {
    /// A mode; bits above 0777 are dropped.
    pub const fn new(bits: u16) -> Self {
        Self(bits & 0o777)
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
    /// The creator: the effective user of the process that made the object. Never changes.
    pub cuid: Uid,
    /// The creator's group. Never changes.
    pub cgid: Gid,
    /// The permission bits. `IPC_SET` changes them.
    pub mode: Mode,
    /// The part of the id that tells apart objects that had the same place in the kernel's table.
    pub seq: u32,
}

impl Permissions {
    pub(crate) fn from_raw(raw: &libc::ipc_perm) -> Self {
        Self {
            key: Key::new(raw.__key),
            uid: Uid::from_raw(raw.uid),
            gid: Gid::from_raw(raw.gid),
            cuid: Uid::from_raw(raw.cuid),
            cgid: Gid::from_raw(raw.cgid),
            // 16 bits wide on some architectures, 32 on others.
            mode: Mode::new((u32::from(raw.mode) & 0o777) as u16),
            seq: u32::from(raw.__seq),
        }
    }

    /// The part that `IPC_SET` can change, as it is now.
    pub fn settings(&self) -> Settings {
        Settings { uid: self.uid, gid: self.gid, mode: self.mode }
    }
}

/// What `IPC_SET` changes of a semaphore set or of shared memory: all three at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The new owner. The creator keeps its rights.
    pub uid: Uid,
    /// The new owner's group.
    pub gid: Gid,
    /// The permission bits.
    pub mode: Mode,
}

impl Settings {
    pub(crate) fn write_to(&self, raw: &mut libc::ipc_perm) {
        raw.uid = self.uid.as_raw();
        raw.gid = self.gid.as_raw();
        raw.mode = self.mode.bits() as _;
    }
}

/// A time in whole seconds, as the kernel keeps it; None for 0, which means never.
pub(crate) fn time(raw: libc::time_t) -> Option<SystemTime> {
    let since = Duration::from_secs(u64::try_from(raw).ok().filter(|&seconds| seconds != 0)?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}
