//! Who made an object and who used it: uids, gids and pids, as the kernel numbers them.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $raw:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// The id with this number, whether or not it exists.
            pub const fn from_raw(raw: $raw) -> Self {
                Self(raw)
            }

            /// The id as a number.
            pub const fn as_raw(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A user id, `uid_t`, in the caller's user namespace.
    Uid, libc::uid_t
}

id! {
    /// A group id, `gid_t`, in the caller's user namespace.
    Gid, libc::gid_t
}

id! {
    /// A process id, `pid_t`, in the caller's pid namespace.
    Pid, libc::pid_t
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
}
