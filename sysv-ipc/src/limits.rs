//! The limits of the IPC namespace, and how much of them is in use.

use super::{Error, syscalls};

/// The limits on message queues in this IPC namespace. Source: `msgctl(IPC_INFO)`, msgctl(2),
/// proc_sys_kernel(5).
///
/// ```
/// let limits = sysv_ipc::QueueLimits::current()?;
/// assert!(limits.msgmax > 0 && limits.msgmnb > 0 && limits.msgmni > 0);
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLimits {
    /// The most bytes of `mtext` in one message (`kernel.msgmax`; 8192 by default).
    pub msgmax: usize,
    /// The `msg_qbytes` of a new queue (`kernel.msgmnb`; 16384 by default).
    pub msgmnb: usize,
    /// The most queues (`kernel.msgmni`; 32000 by default).
    pub msgmni: usize,
}

impl QueueLimits {
    /// The limits as they are now.
    ///
    /// # Errors
    /// None are known; the call needs no permission.
    pub fn current() -> Result<Self, Error> {
        let (_, info) = syscalls::msgctl_info(libc::IPC_INFO)?;
        Ok(Self {
            msgmax: count(info.msgmax),
            msgmnb: count(info.msgmnb),
            msgmni: count(info.msgmni),
        })
    }
}

/// How much of the namespace's limits is in use. Source: `msgctl(MSG_INFO)`, msgctl(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueUsage {
    /// Queues in use.
    pub queues: usize,
    /// Messages in all of them.
    pub messages: usize,
    /// Bytes of `mtext` in all of them.
    pub bytes: usize,
}

impl QueueUsage {
    /// The usage as it is now.
    ///
    /// # Errors
    /// None are known; the call needs no permission.
    pub fn current() -> Result<Self, Error> {
        let (_, info) = syscalls::msgctl_info(libc::MSG_INFO)?;
        Ok(Self {
            queues: count(info.msgpool),
            messages: count(info.msgmap),
            bytes: count(info.msgtql),
        })
    }
}

/// The kernel counts in C ints and lets them wrap; below zero is then a great many.
fn count(raw: libc::c_int) -> usize {
    usize::try_from(raw).unwrap_or(libc::c_int::MAX as usize)
}
