//! Message queues: a handle that anyone may copy, and an owner that removes.

use std::fmt;

use libc::{c_int, c_long};
use nix::errno::Errno;

use super::{
    Error, IpcObject, Key, Message, MessageBuffer, MessageType, Mode, Object, QueueLimits,
    QueueSettings, QueueStatus, ReceiveError, SendError, owned::sealed, syscalls,
};

/// The id of a queue, `msqid`: what the calls take once a key has been looked up. 0 is valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(c_int);

impl QueueId {
    /// The id with this value, whether or not such a queue exists.
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// The id as a number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({})", self.0)
    }
}

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
    fn as_raw(self) -> (c_long, c_int) {
        match self {
            Self::Any => (0, 0),
            Self::Type(mtype) => (mtype.get(), 0),
            Self::UpTo(mtype) => (-mtype.get(), 0),
            Self::Except(mtype) => (mtype.get(), libc::MSG_EXCEPT),
        }
    }
}

/// A message queue, by its id. Copying or dropping the handle does nothing to the queue.
///
/// Nothing says that the queue exists: every use can find it [gone](SendError::Gone). Ids are used
/// again after some millions of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue(QueueId);

impl Queue {
    /// The queue with this id, without looking.
    pub const fn from_id(id: QueueId) -> Self {
        Self(id)
    }

    /// `msgget(key, 0)`: the queue under a key. Takes no permission.
    ///
    /// # Errors
    /// [Gone](Error::is_gone) (`ENOENT`): there is none.
    pub fn open(key: Key) -> Result<Self, Error> {
        Self::get(key, 0)
    }

    /// `msgget(key, IPC_CREAT | mode)`: the queue under a key, made if there was none.
    ///
    /// # Errors
    /// `EACCES`: there is one, whose mode does not let the caller do what `mode` says.
    /// `ENOSPC`: the namespace has no queue left, [`QueueLimits::msgmni`].
    pub fn open_or_create(key: Key, mode: Mode) -> Result<Self, Error> {
        Self::get(key, libc::IPC_CREAT | c_int::from(mode.bits()))
    }

    /// `msgget(key, IPC_CREAT | IPC_EXCL | mode)`: a new queue under a key. With [`Key::PRIVATE`],
    /// one that no key finds. The mode is taken as it is: no umask applies.
    ///
    /// # Errors
    /// `EEXIST`: there is one already. `ENOSPC`: the namespace has no queue left,
    /// [`QueueLimits::msgmni`].
    pub fn create(key: Key, mode: Mode) -> Result<Self, Error> {
        Self::get(key, libc::IPC_CREAT | libc::IPC_EXCL | c_int::from(mode.bits()))
    }

    fn get(key: Key, flags: c_int) -> Result<Self, Error> {
        syscalls::msgget(key.as_raw(), flags)
            .map(|id| Self(QueueId(id)))
            .map_err(|errno| Error::new("msgget", Object::Key(key), errno))
    }

    /// The queue's id.
    pub const fn id(self) -> QueueId {
        self.0
    }

    /// `msgsnd(id, message, len, 0)`: sends a message, waiting while the queue is full.
    ///
    /// # Errors
    /// Any of [`SendError`] but [`Full`](SendError::Full).
    pub fn send<'a>(self, message: impl Into<Message<'a>>) -> Result<(), SendError> {
        self.send_with(message.into(), 0)
    }

    /// `msgsnd(id, message, len, IPC_NOWAIT)`: sends a message if the queue has room for it now.
    ///
    /// # Errors
    /// Any of [`SendError`].
    pub fn try_send<'a>(self, message: impl Into<Message<'a>>) -> Result<(), SendError> {
        self.send_with(message.into(), libc::IPC_NOWAIT)
    }

    fn send_with(self, message: Message<'_>, flags: c_int) -> Result<(), SendError> {
        syscalls::msgsnd(self.0.0, message, flags).map_err(|errno| match errno {
            Errno::EIDRM => SendError::Gone,
            // The type is positive, so EINVAL leaves two: no such queue, or a message too large.
            Errno::EINVAL => match QueueLimits::current() {
                Ok(limits) if message.len() > limits.msgmax => SendError::TooBig,
                _ => SendError::Gone,
            },
            Errno::EAGAIN => SendError::Full,
            Errno::EINTR => SendError::Interrupted,
            errno => SendError::Os(self.error("msgsnd", errno)),
        })
    }

    /// `msgrcv(id, message, capacity, msgtyp, 0)`: receives a message, waiting until there is one.
    ///
    /// # Errors
    /// Any of [`ReceiveError`] but [`Empty`](ReceiveError::Empty).
    pub fn receive(self, message: &mut MessageBuffer, which: Select) -> Result<(), ReceiveError> {
        self.receive_with(message, 0, which, 0)
    }

    /// `msgrcv(id, message, capacity, msgtyp, IPC_NOWAIT)`: receives a message if there is one.
    ///
    /// # Errors
    /// Any of [`ReceiveError`].
    pub fn try_receive(
        self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Result<(), ReceiveError> {
        self.receive_with(message, 0, which, libc::IPC_NOWAIT)
    }

    /// `msgrcv(id, message, capacity, msgtyp, MSG_NOERROR)`: receives a message, waiting until
    /// there is one; of one larger than the buffer the rest is lost, and nothing tells so. Give the
    /// buffer a byte more than the largest message that is in order.
    ///
    /// # Errors
    /// Any of [`ReceiveError`] but [`Empty`](ReceiveError::Empty) and
    /// [`TooBig`](ReceiveError::TooBig).
    pub fn receive_truncated(
        self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Result<(), ReceiveError> {
        self.receive_with(message, 0, which, libc::MSG_NOERROR)
    }

    /// `msgrcv(id, message, capacity, index, MSG_COPY | IPC_NOWAIT)`: copies the message at an
    /// index, 0 being the head, and leaves it in the queue.
    ///
    /// # Errors
    /// [`Empty`](ReceiveError::Empty): the queue holds no more than `index` messages.
    /// [`TooBig`](ReceiveError::TooBig): the message is larger than the buffer.
    /// `ENOSYS`: a kernel without `CONFIG_CHECKPOINT_RESTORE`.
    pub fn peek(self, message: &mut MessageBuffer, index: usize) -> Result<(), ReceiveError> {
        let index = c_long::try_from(index).map_err(|_| ReceiveError::Empty)?;
        // Without MSG_NOERROR: with it, a message larger than the buffer is reported as EINVAL
        // (copy_msg in ipc/msgutil.c), which would read as a queue that is gone.
        self.receive_raw(message, 0, index, libc::MSG_COPY | libc::IPC_NOWAIT)
    }

    /// Receives a message if there is one, like [`try_receive`](Self::try_receive), behind the bytes that
    /// are in the buffer: its text is then theirs and the message's, its type the message's.
    ///
    /// # Errors
    /// Any of [`ReceiveError`]; the buffer is then as it was.
    ///
    /// # Panics
    /// If there is no [room](MessageBuffer::has_room_behind) behind the text.
    pub fn receive_behind(
        self,
        message: &mut MessageBuffer,
        which: Select,
    ) -> Result<(), ReceiveError> {
        self.receive_with(message, message.text().len(), which, libc::IPC_NOWAIT)
    }

    fn receive_with(
        self,
        message: &mut MessageBuffer,
        at: usize,
        which: Select,
        flags: c_int,
    ) -> Result<(), ReceiveError> {
        let (mtype, except) = which.as_raw();
        self.receive_raw(message, at, mtype, flags | except)
    }

    fn receive_raw(
        self,
        message: &mut MessageBuffer,
        at: usize,
        mtype: c_long,
        flags: c_int,
    ) -> Result<(), ReceiveError> {
        let call =
            |block: &mut [c_long], room| syscalls::msgrcv(self.0.0, block, room, mtype, flags);
        message.receive_at(at, call).map_err(|errno| match errno {
            Errno::EIDRM | Errno::EINVAL => ReceiveError::Gone,
            Errno::ENOMSG => ReceiveError::Empty,
            Errno::E2BIG => ReceiveError::TooBig,
            Errno::EINTR => ReceiveError::Interrupted,
            errno => ReceiveError::Os(self.error("msgrcv", errno)),
        })
    }

    /// `msgctl(id, IPC_STAT)`: what the kernel knows of the queue. Where the queue's mode does not
    /// let the caller read, the same from `MSG_STAT_ANY`, which needs no permission.
    ///
    /// # Errors
    /// [Gone](Error::is_gone): there is no such queue.
    pub fn status(self) -> Result<QueueStatus, Error> {
        match syscalls::msgctl_stat(self.0.0) {
            Ok(status) => Ok(QueueStatus::from_raw(&status)),
            Err(Errno::EACCES) => self.status_unread(),
            Err(errno) => Err(self.error("msgctl", errno)),
        }
    }

    fn status_unread(self) -> Result<QueueStatus, Error> {
        // MSG_STAT_ANY takes an index, which is the low bits of the id: 15 of them, or 24 if the
        // kernel was started with ipcmni_extend (ipc/util.h).
        for index_bits in [15, 24] {
            let index = self.0.0 & ((1 << index_bits) - 1);
            if let Ok((id, status)) = syscalls::msgctl_stat_index(index, syscalls::MSG_STAT_ANY)
                && id == self.0.0
            {
                return Ok(QueueStatus::from_raw(&status));
            }
        }
        Err(self.error("msgctl", Errno::EINVAL))
    }

    /// `msgctl(id, IPC_SET)`: changes owner, group, mode and capacity.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged, or `max_bytes` exceeds
    /// [`QueueLimits::msgmnb`] and the caller lacks `CAP_SYS_RESOURCE`.
    /// [Gone](Error::is_gone): there is no such queue.
    pub fn set(self, settings: &QueueSettings) -> Result<(), Error> {
        let mut status =
            syscalls::msgctl_stat(self.0.0).map_err(|errno| self.error("msgctl", errno))?;
        status.msg_perm.uid = settings.uid.as_raw();
        status.msg_perm.gid = settings.gid.as_raw();
        status.msg_perm.mode = settings.mode.bits() as _;
        status.msg_qbytes = settings.max_bytes;
        syscalls::msgctl_set(self.0.0, status).map_err(|errno| self.error("msgctl", errno))
    }

    /// `msgctl(id, IPC_RMID)`: removes the queue with all that is in it, and wakes everyone who
    /// waits on it: they find it gone.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged.
    /// [Gone](Error::is_gone): there is no such queue.
    pub fn remove(self) -> Result<(), Error> {
        syscalls::msgctl_remove(self.0.0).map_err(|errno| self.error("msgctl", errno))
    }

    fn error(self, call: &'static str, errno: Errno) -> Error {
        Error::new(call, Object::Queue(self.0), errno)
    }
}

impl sealed::Sealed for Queue {}

impl IpcObject for Queue {
    fn remove(self) -> Result<(), Error> {
        Queue::remove(self)
    }
}
