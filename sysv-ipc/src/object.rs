//! What queues, semaphore sets and shared memory have in common: ids, status, removal, lists, and
//! owners that remove.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use libc::c_int;

use crate::syscalls::{self, Errno, Kind};
use crate::{Error, Key, Mode, Object, ProcessMark, Queue, SemaphoreSet, SharedMemory};

/// A kind of object: a [`Queue`], a [`SemaphoreSet`] or [`SharedMemory`].
///
/// A value of these types is an id. It is copied freely and owns nothing; [`Owned`] does. The trait
/// exists for [`Owned`] and [`Objects`]: the types have methods of their own. Nobody else can
/// implement it.
pub trait IpcObject: Copy + Kind {
    /// What the kernel tells about an object of this kind.
    type Status: fmt::Debug;

    #[doc(hidden)]
    fn from_raw_id(id: c_int) -> Self;

    #[doc(hidden)]
    fn raw_id(self) -> c_int;

    #[doc(hidden)]
    fn read_status(raw: &Self::RawStatus) -> Self::Status;

    /// The error of a call on this object.
    #[doc(hidden)]
    fn error(self, call: &'static str, errno: Errno) -> Error;
}

/// The methods that all three types have. The size is a parameter that msgget lacks.
macro_rules! ipc_object {
    ($name:ident($id:ident), $status:ident, $get:ident($($size:ident: $type:ty)?), $ctl:ident) => {
        impl $name {
            #[doc = concat!("`", stringify!($get), "` without flags: the object under a key.")]
            /// Needs no permission. [`Key::PRIVATE`] finds none.
            pub fn open(key: Key) -> Result<Self, Error> {
                if key.is_private() {
                    // The kernel would create an object.
                    let object = $crate::Object::Key(key);
                    return Err(Error::new(stringify!($get), object, libc::ENOENT));
                }
                Self::get(key, $(0 as $type,)? 0)
            }

            #[doc = concat!("`", stringify!($get), "` with `IPC_CREAT`: the object under a key,")]
            /// created if there is none.
            ///
            /// # Errors
            /// `EACCES`: there is one, and its mode denies the caller what `mode` grants. `EINVAL`:
            /// there is a smaller one. Otherwise as for [`create`](Self::create).
            pub fn open_or_create(
                key: Key,
                $($size: $type,)?
                mode: Mode,
            ) -> Result<Self, Error> {
                Self::get(key, $($size,)? libc::IPC_CREAT | c_int::from(mode.bits()))
            }

            #[doc = concat!("`", stringify!($get), "` with `IPC_CREAT` and `IPC_EXCL`: a new")]
            /// object under a key. With [`Key::PRIVATE`], one that no key finds. No umask applies
            /// to the mode.
            ///
            /// # Errors
            /// `EEXIST`: there is one already. `ENOSPC`: the namespace has as many objects as its
            /// limits allow. `EINVAL`: the size is zero or above the limit. `ENOMEM`: no memory is
            /// left.
            pub fn create(
                key: Key,
                $($size: $type,)?
                mode: Mode,
            ) -> Result<Self, Error> {
                let flags = libc::IPC_CREAT | libc::IPC_EXCL;
                Self::get(key, $($size,)? flags | c_int::from(mode.bits()))
            }

            fn get(key: Key, $($size: $type,)? flags: c_int) -> Result<Self, Error> {
                $crate::syscalls::$get(key.as_raw(), $($size,)? flags)
                    .map($crate::IpcObject::from_raw_id)
                    .map_err(|errno| {
                        Error::new(stringify!($get), $crate::Object::Key(key), errno)
                    })
            }

            /// The object with this id, whether or not it exists.
            pub const fn from_id(id: $crate::$id) -> Self {
                Self(id)
            }

            /// The object's id, as ipcs(1) prints it.
            pub const fn id(self) -> $crate::$id {
                self.0
            }

            #[doc = concat!("`", stringify!($ctl), "(IPC_STAT)`: what the kernel tells about it.")]
            ///
            /// If the mode does not let the caller read, the same by the `_STAT_ANY` command, which
            /// needs no permission (Linux 4.17).
            pub fn status(self) -> Result<$status, Error> {
                $crate::object::status(self)
            }

            #[doc = concat!("`", stringify!($ctl), "(IPC_RMID)`: removes the object.")]
            ///
            /// Processes that wait for it find it gone. Shared memory that is attached somewhere
            /// loses its key at once, and its memory when nobody has it attached any more.
            pub fn remove(self) -> Result<(), Error> {
                $crate::object::remove(self)
            }
        }

        impl $crate::IpcObject for $name {
            type Status = $status;

            fn from_raw_id(id: c_int) -> Self {
                Self($crate::$id::new(id))
            }

            fn raw_id(self) -> c_int {
                self.0.get()
            }

            fn read_status(raw: &Self::RawStatus) -> $status {
                $status::from_raw(raw)
            }

            fn error(self, call: &'static str, errno: $crate::syscalls::Errno) -> Error {
                Error::new(call, $crate::Object::$name(self.0), errno)
            }
        }
    };
}
pub(crate) use ipc_object;

pub(crate) fn status<T: IpcObject>(object: T) -> Result<T::Status, Error> {
    raw_status(object).map(|raw| T::read_status(&raw))
}

fn raw_status<T: IpcObject>(object: T) -> Result<T::RawStatus, Error> {
    let id = object.raw_id();
    let errno = match syscalls::stat::<T>(id) {
        Err(libc::EACCES) => libc::EACCES,
        status => return status.map_err(|errno| object.error(T::CONTROL, errno)),
    };
    // STAT_ANY takes an index, which is the low bits of the id: 15 of them, or 24 if the kernel
    // was started with ipcmni_extend (ipc/util.h).
    [15, 24]
        .into_iter()
        .filter_map(|bits| syscalls::stat_any::<T>(id & ((1 << bits) - 1)).ok())
        .find_map(|(found, status)| (found == id).then_some(status))
        .ok_or_else(|| object.error(T::CONTROL, errno))
}

/// `IPC_SET`, with a status that `change` made from the current one.
pub(crate) fn set<T: IpcObject>(
    object: T,
    change: impl FnOnce(&mut T::RawStatus),
) -> Result<(), Error> {
    let mut status = raw_status(object)?;
    change(&mut status);
    syscalls::set::<T>(object.raw_id(), status).map_err(|errno| object.error(T::CONTROL, errno))
}

pub(crate) fn remove<T: IpcObject>(object: T) -> Result<(), Error> {
    syscalls::remove::<T>(object.raw_id()).map_err(|errno| object.error(T::CONTROL, errno))
}

/// The highest index of a kind in use, and how much of it is in use.
pub(crate) fn usage<K: Kind>() -> Result<(c_int, K::RawUsage), Error> {
    syscalls::usage::<K>().map_err(|errno| Error::new(K::CONTROL, Object::Namespace, errno))
}

/// `MSG_STAT_ANY`: every queue of this IPC namespace with its status, whoever may read it.
///
/// An object that appears or vanishes meanwhile may be missing; none is listed twice.
///
/// ```
/// use sysv_ipc::{Mode, OwnedQueue, queues};
///
/// let mine = OwnedQueue::private(Mode::new(0o600))?;
/// assert!(queues()?.any(|(queue, status)| queue == *mine && status.messages == 0));
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
pub fn queues() -> Result<Objects<Queue>, Error> {
    Objects::new()
}

/// `SEM_STAT_ANY`: every semaphore set of this IPC namespace with its status. See [`queues`].
pub fn semaphore_sets() -> Result<Objects<SemaphoreSet>, Error> {
    Objects::new()
}

/// `SHM_STAT_ANY`: every segment of shared memory of this IPC namespace with its status. See
/// [`queues`].
pub fn shared_memory_segments() -> Result<Objects<SharedMemory>, Error> {
    Objects::new()
}

/// An iterator over all objects of a kind, made by [`queues`], [`semaphore_sets`] and
/// [`shared_memory_segments`].
#[derive(Debug)]
pub struct Objects<T> {
    next: c_int,
    last: c_int,
    kind: PhantomData<T>,
}

impl<T: IpcObject> Objects<T> {
    fn new() -> Result<Self, Error> {
        let (last, _) = usage::<T>()?;
        Ok(Self { next: 0, last, kind: PhantomData })
    }
}

impl<T: IpcObject> Iterator for Objects<T> {
    type Item = (T, T::Status);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next <= self.last {
            let index = self.next;
            self.next += 1;
            // Fails for an index that is not in use.
            if let Ok((id, raw)) = syscalls::stat_any::<T>(index) {
                return Some((T::from_raw_id(id), T::read_status(&raw)));
            }
        }
        None
    }
}

/// An object that is removed when this goes out of scope, but only in the process that made this:
/// a forked child that drops its copy removes nothing ([`ProcessMark`]).
///
/// Nothing is removed if the process dies without running destructors.
///
/// ```
/// use sysv_ipc::{Key, Mode, Owned, Queue};
///
/// let queue = Owned::new(Queue::create(Key::PRIVATE, Mode::new(0o600))?);
/// let handle = *queue;
/// drop(queue);
/// assert!(handle.status().unwrap_err().is_gone());
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Debug)]
pub struct Owned<T: IpcObject> {
    object: T,
    owner: ProcessMark,
}

impl<T: IpcObject> Owned<T> {
    /// Makes the calling process the owner.
    pub fn new(object: T) -> Self {
        Self { object, owner: ProcessMark::current() }
    }

    /// Gives up ownership without removing the object.
    pub fn release(self) -> T {
        let object = self.object;
        std::mem::forget(self);
        object
    }
}

impl<T: IpcObject> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: IpcObject> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.owner.is_current() {
            // Fails if somebody else removed it already, which is as good.
            let _ = remove(self.object);
        }
    }
}

/// A queue that is removed when this goes out of scope.
pub type OwnedQueue = Owned<Queue>;

impl Owned<Queue> {
    /// A new queue under `IPC_PRIVATE`, which no key finds.
    pub fn private(mode: Mode) -> Result<Self, Error> {
        Self::create(Key::PRIVATE, mode)
    }

    /// A new queue under a key.
    pub fn create(key: Key, mode: Mode) -> Result<Self, Error> {
        Queue::create(key, mode).map(Self::new)
    }
}
