//! Typed, safe System V IPC: message queues, the one semaphore operation that makes a lock, and
//! shared memory to count in.
//!
//! Every system call keeps its name in the documentation of the method that makes it; the calls
//! that multiplex are split (`msgctl` is [`Queue::status`], [`Queue::set`] and [`Queue::remove`]).
//! What a program must expect of a queue that it shares with others, that it is gone, full or
//! empty, is a variant of [`SendError`] and [`ReceiveError`] and needs no errno. Everything else
//! is an [`Error`], which names the call, the object and the errno.
//!
//! ```
//! use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, ReceiveError, Select};
//!
//! let queue = OwnedQueue::private(Mode::new(0o600))?; // removed when it goes out of scope
//! let greeting = MessageType::new(7).unwrap();
//! queue.send(&MessageBuffer::with_text(greeting, b"hello"))?;
//!
//! let mut message = MessageBuffer::with_capacity(64);
//! queue.receive(&mut message, Select::Any)?;
//! assert_eq!((message.mtype(), message.text()), (greeting, &b"hello"[..]));
//! assert!(matches!(queue.try_receive(&mut message, Select::Any), Err(ReceiveError::Empty)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: svipc(7), msgget(2), msgop(2), msgctl(2), semget(2), semop(2), semctl(2), shmget(2),
//! shmop(2), shmctl(2), ftok(3); *The Linux Programming Interface* (TLPI), chapters 45 to 48.

mod error;
mod ids;
mod key;
mod limits;
mod list;
mod lock;
#[allow(unsafe_code)]
mod message;
mod owned;
mod process_mark;
mod queue;
mod shared_memory;
mod status;
#[allow(unsafe_code)]
mod syscalls;

pub use error::{Error, Object, ReceiveError, SendError};
pub use ids::{Gid, Pid, Uid};
pub use key::{InvalidKey, Key};
pub use limits::{QueueLimits, QueueUsage};
pub use list::{Queues, queues, readable_queues};
pub use lock::{Acquire, Lock, SemaphoreStatus};
pub use message::{Message, MessageBuffer, MessageType};
pub use owned::{IpcObject, Owned, OwnedQueue};
pub use process_mark::ProcessMark;
pub use queue::{Queue, QueueId, Select};
pub use shared_memory::{Attached, AttachedReadOnly, SharedMemory, SharedMemoryStatus};
pub use status::{Mode, Permissions, QueueSettings, QueueStatus};
