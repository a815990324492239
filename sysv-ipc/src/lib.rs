#![doc = include_str!("../README.md")]
//! # What is where
//!
//! | | message queues | semaphore sets | shared memory |
//! | --- | --- | --- | --- |
//! | object | [`Queue`] | [`SemaphoreSet`], [`Lock`] | [`SharedMemory`] |
//! | use | [`MessageBuffer`] | [`Operation`] | [`Attached`], [`AttachedReadOnly`] |
//! | list | [`queues`] | [`semaphore_sets`] | [`shared_memory_segments`] |
//! | limits | [`QueueLimits`] | [`SemaphoreLimits`] | [`SharedMemoryLimits`] |
//! | usage | [`QueueUsage`] | [`SemaphoreUsage`] | [`SharedMemoryUsage`] |
//!
//! * **Names.** The documentation of each method names its system call.
//! * **Handles.** A [`Queue`], [`SemaphoreSet`] or [`SharedMemory`] is an id, and `Copy`. The
//!   kernel keeps the object until somebody removes it, which [`Owned`] does when it is dropped.
//! * **Errors.** A program must expect that an object is gone, full, empty or busy: these outcomes
//!   are variants of [`SendError`], [`ReceiveError`] and [`OperateError`]. Everything else is an
//!   [`Error`], which names the call, the object and the errno. All of them convert to
//!   [`std::io::Error`]. Every call can fail because the object is gone ([`Error::is_gone`]) or
//!   because the caller lacks the right ([`Error::is_denied`]). Each method lists its other errors.
//!
//! Sources: svipc(7), msgget(2), msgop(2), msgctl(2), semget(2), semop(2), semctl(2), shmget(2),
//! shmop(2), shmctl(2), ftok(3); *The Linux Programming Interface* (TLPI), chapters 45 to 48.

#![deny(missing_docs)]

mod error;
mod ids;
mod key;
mod limits;
mod lock;
#[allow(unsafe_code)]
mod memory;
mod message;
mod object;
mod owned;
mod permissions;
mod process_mark;
mod queue;
mod semaphore;
mod shared_memory;
#[allow(unsafe_code)]
mod syscalls;

pub(crate) use error::Object;
pub use error::{Error, OperateError, ReceiveError, SendError};
pub use ids::{Gid, Pid, QueueId, SemaphoreId, SharedMemoryId, Uid};
pub use key::{InvalidKey, Key};
pub use limits::{
    QueueLimits, QueueUsage, SemaphoreLimits, SemaphoreUsage, SharedMemoryLimits, SharedMemoryUsage,
};
pub use lock::{Acquire, Lock};
pub use message::{Message, MessageBuffer, MessageType};
pub use object::{IpcObject, queues, semaphore_sets, shared_memory_segments};
pub use owned::{Owned, OwnedQueue};
pub use permissions::{Mode, Permissions, Settings};
pub use process_mark::ProcessMark;
pub use queue::{Queue, QueueSettings, QueueStatus, Select};
pub use semaphore::{Operation, SemaphoreSet, SemaphoreStatus};
pub use shared_memory::{Attached, AttachedReadOnly, SharedMemory, SharedMemoryStatus};
