//! The limits of the IPC namespace, and how much of them is in use.

use crate::syscalls::{self, Errno, Kind};
use crate::{Error, Object, Queue, SemaphoreSet, SharedMemory};

/// A structure whose fields a control call of the namespace fills in.
macro_rules! namespace_info {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $call:ident {
        $($(#[$field_doc:meta])* $field:ident: $raw:ident,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: usize,)*
        }

        impl $name {
            /// The numbers as they are now.
            pub fn current() -> Result<Self, Error> {
                let (_, info) = syscalls::$call::<$kind>().map_err(namespace_error::<$kind>)?;
                Ok(Self { $($field: count(info.$raw),)* })
            }
        }
    };
}

namespace_info! {
    /// `msgctl(IPC_INFO)`: the limits on message queues. Source: msgctl(2), proc_sys_kernel(5).
    QueueLimits, Queue, limits {
        /// The most bytes of `mtext` in one message (`kernel.msgmax`; 8192 by default).
        msgmax: msgmax,
        /// The `msg_qbytes` of a new queue (`kernel.msgmnb`; 16384 by default).
        msgmnb: msgmnb,
        /// The most queues (`kernel.msgmni`; 32000 by default).
        msgmni: msgmni,
    }
}

namespace_info! {
    /// `msgctl(MSG_INFO)`: how much message queues use. Source: msgctl(2).
    QueueUsage, Queue, usage {
        /// Queues in use.
        queues: msgpool,
        /// Messages in all of them.
        messages: msgmap,
        /// Bytes of `mtext` in all of them.
        bytes: msgtql,
    }
}

namespace_info! {
    /// `semctl(IPC_INFO)`: the limits on semaphores (`kernel.sem`, but `semvmx`). Source:
    /// semctl(2), proc_sys_kernel(5).
    SemaphoreLimits, SemaphoreSet, limits {
        /// The most semaphores in one set (32000 by default).
        semmsl: semmsl,
        /// The most semaphores in all sets (1,024,000,000 by default).
        semmns: semmns,
        /// The most operations in one call (500 by default).
        semopm: semopm,
        /// The most sets (32000 by default).
        semmni: semmni,
        /// The greatest value of a semaphore: 32767.
        semvmx: semvmx,
    }
}

namespace_info! {
    /// `semctl(SEM_INFO)`: how much semaphores use. Source: semctl(2).
    SemaphoreUsage, SemaphoreSet, usage {
        /// Sets in use.
        sets: semusz,
        /// Semaphores in all of them.
        semaphores: semaem,
    }
}

namespace_info! {
    /// `shmctl(IPC_INFO)`: the limits on shared memory. Source: shmctl(2), proc_sys_kernel(5).
    SharedMemoryLimits, SharedMemory, limits {
        /// The most bytes in one segment (`kernel.shmmax`).
        shmmax: shmmax,
        /// The fewest bytes in one segment: 1.
        shmmin: shmmin,
        /// The most segments (`kernel.shmmni`; 4096 by default).
        shmmni: shmmni,
        /// The most pages in all segments (`kernel.shmall`).
        shmall: shmall,
    }
}

namespace_info! {
    /// `shmctl(SHM_INFO)`: how much shared memory is in use. Source: shmctl(2).
    SharedMemoryUsage, SharedMemory, usage {
        /// Segments in use.
        segments: used_ids,
        /// Their size together, in pages.
        pages: shm_tot,
        /// The pages of them that are in memory.
        resident: shm_rss,
        /// The pages of them that are in swap.
        swapped: shm_swp,
    }
}

pub(crate) fn namespace_error<K: Kind>(errno: Errno) -> Error {
    Error::new(K::CONTROL, Object::Namespace, errno)
}

/// A number from the kernel. It counts in C ints that wrap, so a negative one means a great many.
pub(crate) fn count(raw: impl TryInto<usize>) -> usize {
    raw.try_into().unwrap_or(usize::MAX)
}
