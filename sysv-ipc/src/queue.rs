//! Message queues.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use libc::{c_int, c_long};

use crate::object::{self, Id, ipc_object, object_status};
use crate::permissions::{Settings, time};
use crate::syscalls;
use crate::{
    Error, Gid, Key, Message, MessageBuffer, MessageType, Mode, Permissions, Pid, QueueId,
    QueueLimits, ReceiveError, SendError, Uid,
};

/// Which message to receive: the `msgtyp` of msgrcv(2), and `MSG_EXCEPT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The first message.
    Any,
    /// The first message of this type.
    Type(MessageType),
    /// The first message of the lowest type that is at most this one.
    UpTo(MessageType),
    /// The first message of any other type.
    Except(MessageType),
}

impl Select {
    /// The type and the flags for msgrcv, with these flags added.
    fn with_flags(self, flags: c_int) -> (c_long, c_int) {
        match self {
            Self::Any => (0, flags),
            Self::Type(mtype) => (mtype.get(), flags),
            Self::UpTo(mtype) => (-mtype.get(), flags),
            Self::Except(mtype) => (mtype.get(), flags | libc::MSG_EXCEPT),
        }
    }
}

/// A message queue, named by its id. Copying or dropping this does nothing to the queue.
///
/// The queue need not exist: every use can find it [gone](SendError::Gone).
///
/// # Waiting with a deadline
///
/// The kernel has no time limit for a queue: msgrcv(2) and msgsnd(2) take no timeout, and poll(2)
/// takes no queue. So [`receive_until`](Self::receive_until) and [`send_until`](Self::send_until)
/// try and sleep in turn, at most 5 ms at a time. A long wait uses 0.2 to 0.3 % of a core;
/// `examples/deadline_cost.rs` measures it. No signal handler ends the wait.
///
/// The kernel gives a new message to a process that waits in msgrcv(2) before `receive_until` can
/// see it. If that matters, or if the milliseconds do, block in [`receive`](Self::receive) on a
/// thread of its own: a message of an agreed type ends its wait, and so does removing the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue(QueueId);

impl Queue {
    /// `msgsnd(id, message, len, 0)`: sends a message, waiting while the queue is full.
    pub fn send<'a>(self, message: impl Into<Message<'a>>) -> Result<(), SendError> {
        self.send_with(message.into(), 0)
    }

    /// `msgsnd(id, message, len, IPC_NOWAIT)`: sends a message if the queue has room for it now.
    pub fn try_send<'a>(self, message: impl Into<Message<'a>>) -> Result<(), SendError> {
        self.send_with(message.into(), libc::IPC_NOWAIT)
    }

    /// Sends a message, waiting while the queue is full, but not beyond a deadline: see [`Queue`].
    pub fn send_until<'a>(
        self,
        message: impl Into<Message<'a>>,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let message = message.into();
        try_until(deadline, || match self.try_send(message) {
            Err(SendError::Full | SendError::Interrupted) => None,
            outcome => Some(outcome),
        })
        .unwrap_or(Err(SendError::TimedOut))
    }

    #[inline] // a page fault less in a new process that sends one message
    fn send_with(self, message: Message<'_>, flags: c_int) -> Result<(), SendError> {
        let Message { block, len } = message;
        syscalls::msgsnd(self.0.get(), block, len, flags)
            .map_err(|errno| self.send_error(errno, len))
    }

    #[cold]
    fn send_error(self, errno: c_int, len: usize) -> SendError {
        match errno {
            libc::EIDRM => SendError::Gone,
            // The type is positive, so EINVAL means no such queue or a message too large.
            libc::EINVAL => match QueueLimits::current() {
                Ok(limits) if len > limits.msgmax => SendError::TooBig,
                _ => SendError::Gone,
            },
            libc::EAGAIN => SendError::Full,
            libc::EINTR => SendError::Interrupted,
            errno => SendError::Os(self.error("msgsnd", errno)),
        }
    }

    /// `msgrcv(id, message, capacity, msgtyp, 0)`: receives a message, waiting until there is one.
    pub fn receive(self, message: &mut MessageBuffer, which: Select) -> Result<(), ReceiveError> {
        self.receive_at(message, 0, which.with_flags(0))
    }

    /// `msgrcv(id, message, capacity, msgtyp, IPC_NOWAIT)`: receives a message if there is one.
    pub fn try_receive(
        self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Result<(), ReceiveError> {
        self.receive_at(message, 0, which.with_flags(libc::IPC_NOWAIT))
    }

    /// Receives a message, waiting until there is one, but not beyond a deadline: see [`Queue`].
    pub fn receive_until(
        self,
        message: &mut MessageBuffer,
        which: Select,
        deadline: Instant,
    ) -> Result<(), ReceiveError> {
        try_until(deadline, || match self.try_receive(message, which) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted) => None,
            outcome => Some(outcome),
        })
        .unwrap_or(Err(ReceiveError::TimedOut))
    }

    /// `msgrcv(id, message, capacity, msgtyp, MSG_NOERROR)`: receives a message, waiting until
    /// there is one. If it is larger than the buffer, the rest is lost, without an error: give the
    /// buffer room for one byte more than the largest message that you accept.
    pub fn receive_truncated(
        self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Result<(), ReceiveError> {
        self.receive_at(message, 0, which.with_flags(libc::MSG_NOERROR))
    }

    /// `msgrcv(id, message, capacity, index, MSG_COPY | IPC_NOWAIT)`: copies the message at an
    /// index, 0 being the head, and leaves it in the queue. [`Empty`](ReceiveError::Empty): there
    /// is none at that index. `ENOSYS`: a kernel without `CONFIG_CHECKPOINT_RESTORE`.
    pub fn peek(self, message: &mut MessageBuffer, index: usize) -> Result<(), ReceiveError> {
        let index = c_long::try_from(index).map_err(|_| ReceiveError::Empty)?;
        // No MSG_NOERROR: the kernel would answer EINVAL for a message larger than the buffer
        // (copy_msg in ipc/msgutil.c), and EINVAL means to us that the queue is gone.
        self.receive_at(message, 0, (index, libc::MSG_COPY | libc::IPC_NOWAIT))
    }

    /// Receives a message if there is one, as [`try_receive`](Self::try_receive) does, and appends
    /// its text to the text in the buffer. The buffer then has the type of the new message. After
    /// an error, the buffer is unchanged. Panics if the text does not end at a multiple of 8 bytes.
    pub fn receive_appending(
        self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Result<(), ReceiveError> {
        self.receive_at(message, message.text().len(), which.with_flags(libc::IPC_NOWAIT))
    }

    fn receive_at(
        self,
        message: &mut MessageBuffer,
        at: usize,
        (mtype, flags): (c_long, c_int),
    ) -> Result<(), ReceiveError> {
        let call =
            |block: &mut [c_long], room| syscalls::msgrcv(self.0.get(), block, room, mtype, flags);
        message.receive_at(at, call).map_err(|errno| match errno {
            libc::EIDRM | libc::EINVAL => ReceiveError::Gone,
            libc::ENOMSG => ReceiveError::Empty,
            libc::E2BIG => ReceiveError::TooBig,
            libc::EINTR => ReceiveError::Interrupted,
            errno => ReceiveError::Os(self.error("msgrcv", errno)),
        })
    }

    /// `msgctl(id, IPC_SET)`: changes owner, group, mode and capacity.
    pub fn set(self, settings: &QueueSettings) -> Result<(), Error> {
        let QueueSettings { uid, gid, mode, max_bytes } = *settings;
        object::set(self, |raw| {
            Settings { uid, gid, mode }.write_to(&mut raw.msg_perm);
            raw.msg_qbytes = max_bytes;
        })
    }
}

ipc_object!(Queue(QueueId), QueueStatus, msgget(), msgctl);

object_status! {
    /// What the kernel tells about a queue: `struct msqid_ds`, msgctl(2). Times are in whole
    /// seconds. A process that this pid namespace cannot see reads as None.
    Queue: QueueStatus from raw: libc::msqid_ds {
        /// Owner, creator, key and mode.
        permissions: Permissions = Permissions::from_raw(&raw.msg_perm),
        /// Messages in the queue.
        messages: u64 = raw.msg_qnum,
        /// Bytes of `mtext` in the queue.
        bytes: u64 = raw.__msg_cbytes,
        /// The most bytes of `mtext` that the queue can hold, `msg_qbytes`.
        max_bytes: u64 = raw.msg_qbytes,
        /// The process that sent last.
        last_sender: Option<Pid> = Pid::known(raw.msg_lspid),
        /// The process or thread that received last.
        last_receiver: Option<Pid> = Pid::known(raw.msg_lrpid),
        /// When a message was last sent.
        sent_at: Option<SystemTime> = time(raw.msg_stime),
        /// When a message was last received.
        received_at: Option<SystemTime> = time(raw.msg_rtime),
        /// When the queue was created or last changed by `IPC_SET`.
        changed_at: SystemTime = time(raw.msg_ctime).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

impl QueueStatus {
    /// The part that [`Queue::set`] can change, as it is now.
    pub fn settings(&self) -> QueueSettings {
        let Permissions { uid, gid, mode, .. } = self.permissions;
        QueueSettings { uid, gid, mode, max_bytes: self.max_bytes }
    }
}

/// What `IPC_SET` changes of a queue: all four at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// The new owner. The creator keeps its rights.
    pub uid: Uid,
    /// The new owner's group.
    pub gid: Gid,
    /// The permission bits.
    pub mode: Mode,
    /// `msg_qbytes`, in bytes. Above `kernel.msgmnb`, even the old value needs `CAP_SYS_RESOURCE`.
    pub max_bytes: u64,
}

/// For this long the thread yields between two tries. Then it sleeps.
const YIELDING: Duration = Duration::from_micros(50);

/// The longest sleep between two tries, and so the most that is added to a long wait.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);

/// Tries until an attempt has an outcome or the deadline has passed, but at least once. None: the
/// deadline has passed.
///
/// Each sleep is an eighth of the time waited so far. So a short wait is hardly lengthened, and a
/// long one tries only 200 times a second.
fn try_until<T>(deadline: Instant, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(outcome) = attempt() {
            return Some(outcome);
        }
        let now = Instant::now();
        if now >= deadline {
            return None;
        }
        let waited = now - start;
        if waited < YIELDING {
            thread::yield_now();
        } else {
            thread::sleep((waited / 8).min(LONGEST_SLEEP).min(deadline - now));
        }
    }
}
