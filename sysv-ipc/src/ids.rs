//! The numbers that the kernel gives to users, groups, processes and objects, each its own type.

use std::fmt;

use libc::c_int;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($raw:ty), $new:ident, $get:ident;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name($raw);

            impl $name {
                /// The id with this number, whether or not it exists.
                pub const fn $new(raw: $raw) -> Self {
                    Self(raw)
                }

                /// The id as a number.
                pub const fn $get(self) -> $raw {
                    self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        )+
    };
}

ids! {
    /// A user id, `uid_t`, in the caller's user namespace.
    Uid(libc::uid_t), from_raw, as_raw;
    /// A group id, `gid_t`, in the caller's user namespace.
    Gid(libc::gid_t), from_raw, as_raw;
    /// A process id, `pid_t`, in the caller's pid namespace.
    Pid(libc::pid_t), from_raw, as_raw;
    /// The id of a queue, `msqid`. 0 is a valid id. The kernel reuses ids, but late.
    QueueId(c_int), new, get;
    /// The id of a semaphore set, `semid`. 0 is valid and ids are reused, as with a [`QueueId`].
    SemaphoreId(c_int), new, get;
    /// The id of shared memory, `shmid`. 0 is valid and ids are reused, as with a [`QueueId`].
    SharedMemoryId(c_int), new, get;
}

impl Uid {
    /// Uid 0.
    pub const ROOT: Self = Self(0);

    /// Whether this is uid 0.
    pub const fn is_root(self) -> bool {
        self.0 == 0
    }
}

impl Pid {
    /// The calling process.
    pub fn current() -> Self {
        Self(std::process::id().cast_signed())
    }

    /// None for 0: no process, or one that this pid namespace cannot see.
    pub(crate) fn known(raw: libc::pid_t) -> Option<Self> {
        (raw != 0).then_some(Self(raw))
    }
}
