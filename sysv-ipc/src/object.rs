//! What queues, semaphore sets and shared memory share: ids, keys, status, lists and removal.

use std::fmt;

use libc::c_int;

use crate::limits::namespace_error;
use crate::syscalls::{self, Errno, Kind};
use crate::{
    Error, Queue, QueueStatus, SemaphoreSet, SemaphoreStatus, SharedMemory, SharedMemoryStatus,
};

/// A [`Queue`], a [`SemaphoreSet`] or [`SharedMemory`]: what [`Owned`](crate::Owned) can own.
/// Nobody else can implement it.
pub trait IpcObject: Id {
    /// What the kernel tells about an object of this kind.
    type Status: fmt::Debug;

    #[doc(hidden)]
    fn read_status(raw: &Self::RawStatus) -> Self::Status;
}

/// An object as a number. In a private module, so that nobody else can implement it.
pub trait Id: Kind {
    fn from_raw_id(id: c_int) -> Self;

    fn raw_id(self) -> c_int;

    /// The error of a call on this object.
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
                    return Err(Self::get_error(key, libc::ENOENT));
                }
                Self::get(key, $(0 as $type,)? 0)
            }

            #[doc = concat!("`", stringify!($get), "` with `IPC_CREAT`: the object under a key,")]
            /// created if there is none. `EACCES`: there is one, and its mode denies the caller
            /// what `mode` grants. `EINVAL`: there is a smaller one.
            pub fn open_or_create(key: Key, $($size: $type,)? mode: Mode) -> Result<Self, Error> {
                Self::get(key, $($size,)? libc::IPC_CREAT | c_int::from(mode.bits()))
            }

            #[doc = concat!("`", stringify!($get), "` with `IPC_CREAT` and `IPC_EXCL`: a new")]
            /// object under a key. With [`Key::PRIVATE`], one that no key finds. No umask applies
            /// to the mode. `EEXIST`: there is one already. `ENOSPC`: the namespace has as many as
            /// its limits allow. `EINVAL`: the size is zero or above the limit.
            pub fn create(key: Key, $($size: $type,)? mode: Mode) -> Result<Self, Error> {
                let flags = libc::IPC_CREAT | libc::IPC_EXCL;
                Self::get(key, $($size,)? flags | c_int::from(mode.bits()))
            }

            fn get(key: Key, $($size: $type,)? flags: c_int) -> Result<Self, Error> {
                $crate::syscalls::$get(key.as_raw(), $($size,)? flags)
                    .map($crate::object::Id::from_raw_id)
                    .map_err(|errno| Self::get_error(key, errno))
            }

            fn get_error(key: Key, errno: $crate::syscalls::Errno) -> Error {
                Error::new(stringify!($get), $crate::Object::Key(key), errno)
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
            /// Needs no permission.
            pub fn status(self) -> Result<$status, Error> {
                $crate::object::status(self)
            }

            #[doc = concat!("`", stringify!($ctl), "(IPC_RMID)`: removes the object. Processes")]
            /// that wait for it find it gone. Shared memory that is attached stays without a key.
            pub fn remove(self) -> Result<(), Error> {
                $crate::object::remove(self)
            }
        }

        impl $crate::object::Id for $name {
            fn from_raw_id(id: c_int) -> Self {
                Self($crate::$id::new(id))
            }

            fn raw_id(self) -> c_int {
                self.0.get()
            }

            fn error(self, call: &'static str, errno: $crate::syscalls::Errno) -> Error {
                Error::new(call, $crate::Object::$name(self.0), errno)
            }
        }
    };
}
pub(crate) use ipc_object;

/// What the kernel tells about an object: a structure whose fields come from the C structure.
macro_rules! object_status {
    ($(#[$doc:meta])* $object:ident: $name:ident from $raw:ident: $raw_type:ty {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $value:expr,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl $crate::IpcObject for $object {
            type Status = $name;

            fn read_status($raw: &$raw_type) -> $name {
                $name { $($field: $value,)+ }
            }
        }
    };
}
pub(crate) use object_status;

pub(crate) fn status<T: IpcObject>(object: T) -> Result<T::Status, Error> {
    raw_status(object).map(|raw| T::read_status(&raw))
}

fn raw_status<T: Id>(object: T) -> Result<T::RawStatus, Error> {
    let id = object.raw_id();
    let errno = match syscalls::stat::<T>(id) {
        Err(libc::EACCES) => libc::EACCES,
        status => return status.map_err(|errno| object.error(T::CONTROL, errno)),
    };
    // STAT_ANY needs no permission, but takes an index, which is the low bits of the id: 15 of
    // them, or 24 if the kernel was started with ipcmni_extend (ipc/util.h).
    [15, 24]
        .into_iter()
        .filter_map(|bits| syscalls::stat_any::<T>(id & ((1 << bits) - 1)).ok())
        .find_map(|(found, status)| (found == id).then_some(status))
        .ok_or_else(|| object.error(T::CONTROL, errno))
}

/// `IPC_SET`, with a status that `change` made from the current one.
pub(crate) fn set<T: Id>(object: T, change: impl FnOnce(&mut T::RawStatus)) -> Result<(), Error> {
    let mut status = raw_status(object)?;
    change(&mut status);
    syscalls::set::<T>(object.raw_id(), status).map_err(|errno| object.error(T::CONTROL, errno))
}

pub(crate) fn remove<T: Id>(object: T) -> Result<(), Error> {
    syscalls::remove::<T>(object.raw_id()).map_err(|errno| object.error(T::CONTROL, errno))
}

/// `MSG_STAT_ANY`: every queue of this IPC namespace with its status, whoever may read it.
///
/// An object that appears or vanishes meanwhile may be missing; none is listed twice.
pub fn queues() -> Result<impl Iterator<Item = (Queue, QueueStatus)>, Error> {
    objects()
}

/// `SEM_STAT_ANY`: every semaphore set of this IPC namespace with its status. See [`queues`].
pub fn semaphore_sets() -> Result<impl Iterator<Item = (SemaphoreSet, SemaphoreStatus)>, Error> {
    objects()
}

/// `SHM_STAT_ANY`: every segment of this IPC namespace with its status. See [`queues`].
pub fn shared_memory_segments()
-> Result<impl Iterator<Item = (SharedMemory, SharedMemoryStatus)>, Error> {
    objects()
}

fn objects<T: IpcObject>() -> Result<impl Iterator<Item = (T, T::Status)>, Error> {
    let (last, _) = syscalls::usage::<T>().map_err(namespace_error::<T>)?;
    // The call fails for an index that is not in use.
    Ok((0..=last).filter_map(|index| {
        let (id, raw) = syscalls::stat_any::<T>(index).ok()?;
        Some((T::from_raw_id(id), T::read_status(&raw)))
    }))
}
