//! Shared memory, seen as counters that every process attached to it may change.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::Pid;
use libc::c_int;
use nix::errno::Errno;

use super::syscalls::Mapping;
use super::{Error, IpcObject, Key, Mode, Object, Permissions, owned::sealed, syscalls};

/// A segment of shared memory, by its id. Copying or dropping the handle does nothing to it.
///
/// A segment outlives the processes that made and used it, and a removed one lives on until the
/// last process has detached it. So nothing in it can tell whether its maker still lives: pair it
/// with an object that tells, such as a [`Semaphore`](super::Lock) used as a lock.
///
/// ```
/// use std::sync::atomic::Ordering::Relaxed;
/// use sysv_ipc::{Key, Mode, SharedMemory};
///
/// let memory = SharedMemory::create(Key::PRIVATE, 4096, Mode::new(0o644))?;
/// let writer = memory.attach()?;
/// let reader = memory.attach_read_only()?;
/// memory.remove()?; // goes once both have let go
/// writer.words()[3].fetch_add(42, Relaxed);
/// assert_eq!(reader.load(3), Some(42));
/// assert!(memory.status()?.is_removed);
/// drop((writer, reader));
/// assert!(memory.status().unwrap_err().is_gone());
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedMemory(c_int);

/// What the kernel knows of a segment. Source: `shmctl(IPC_STAT)`, shmctl(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedMemoryStatus {
    /// Whose the segment is, and who may use it. Its key is [`Key::PRIVATE`] once it is removed.
    pub permissions: Permissions,
    /// The size it was made with, in bytes.
    pub size: usize,
    /// How often it is attached: more than once by a process that attached it more than once.
    pub attached: u64,
    /// The process that made it. None: one that this pid namespace cannot see.
    pub maker: Option<Pid>,
    /// The process that attached or detached it last. None if none did, or as for `maker`.
    pub last_user: Option<Pid>,
    /// Whether it goes with the last process that detaches it (`SHM_DEST`).
    pub is_removed: bool,
}

/// `SHM_DEST`, a bit of the mode in `IPC_STAT`; not in libc.
const SHM_DEST: u32 = 0o1000;

impl SharedMemory {
    /// `shmget(key, 0, 0)`: the segment under a key, of whatever size. Takes no permission.
    ///
    /// # Errors
    /// [Gone](Error::is_gone) (`ENOENT`): there is none.
    pub fn open(key: Key) -> Result<Self, Error> {
        Self::get(key, 0, 0)
    }

    /// `shmget(key, size, IPC_CREAT | IPC_EXCL | mode)`: a new segment of `size` bytes, all zero.
    /// With [`Key::PRIVATE`], one that no key finds. No umask applies.
    ///
    /// # Errors
    /// `EEXIST`: there is one already. `EINVAL`: the size is zero, or more than `kernel.shmmax`.
    /// `ENOSPC`: the namespace has no segment left (`kernel.shmmni`, `kernel.shmall`).
    pub fn create(key: Key, size: usize, mode: Mode) -> Result<Self, Error> {
        Self::get(key, size, libc::IPC_CREAT | libc::IPC_EXCL | c_int::from(mode.bits()))
    }

    fn get(key: Key, size: usize, flags: c_int) -> Result<Self, Error> {
        syscalls::shmget(key.as_raw(), size, flags)
            .map(Self)
            .map_err(|errno| Error::new("shmget", Object::Key(key), errno))
    }

    /// The segment's id, as ipcs prints it. 0 is valid.
    pub const fn id(self) -> i32 {
        self.0
    }

    /// `shmat(id, NULL, 0)`: attaches the segment. Takes read and write permission.
    ///
    /// # Errors
    /// `EACCES`: the mode does not let the caller. [Gone](Error::is_gone): there is no such
    /// segment. `ENOMEM`: no address space is left.
    pub fn attach(self) -> Result<Attached, Error> {
        self.map(0).map(Attached)
    }

    /// `shmat(id, NULL, SHM_RDONLY)`: attaches the segment for reading alone. Takes read
    /// permission.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach).
    pub fn attach_read_only(self) -> Result<AttachedReadOnly, Error> {
        self.map(libc::SHM_RDONLY).map(AttachedReadOnly)
    }

    fn map(self, flags: c_int) -> Result<Mapping, Error> {
        syscalls::shmat(self.0, flags).map_err(|(call, errno)| self.error(call, errno))
    }

    /// `shmctl(id, IPC_STAT)`: what the kernel knows of it. Takes read permission. Of a removed
    /// segment it tells as long as somebody has it attached.
    ///
    /// # Errors
    /// `EACCES`: the mode does not let the caller. [Gone](Error::is_gone): there is no such
    /// segment.
    pub fn status(self) -> Result<SharedMemoryStatus, Error> {
        let raw = syscalls::shmctl_stat(self.0).map_err(|errno| self.error("shmctl", errno))?;
        let perm = &raw.shm_perm;
        let pid = |raw| (raw != 0).then(|| Pid::from_raw(raw));
        Ok(SharedMemoryStatus {
            permissions: Permissions::from_raw(perm),
            size: raw.shm_segsz,
            attached: raw.shm_nattch,
            maker: pid(raw.shm_cpid),
            last_user: pid(raw.shm_lpid),
            is_removed: u32::from(perm.mode) & SHM_DEST != 0,
        })
    }

    /// `shmctl(id, IPC_RMID)`: takes the key from it at once, and the memory once nobody has it
    /// attached.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged.
    /// [Gone](Error::is_gone): there is no such segment.
    pub fn remove(self) -> Result<(), Error> {
        syscalls::shmctl_remove(self.0).map_err(|errno| self.error("shmctl", errno))
    }

    fn error(self, call: &'static str, errno: Errno) -> Error {
        Error::new(call, Object::SharedMemory(self.0), errno)
    }
}

impl sealed::Sealed for SharedMemory {}

impl IpcObject for SharedMemory {
    fn remove(self) -> Result<(), Error> {
        SharedMemory::remove(self)
    }
}

/// A segment, attached; `shmdt` when it goes out of scope. A forked child has it attached too, and
/// detaches its own. Other processes may change any word at any time.
#[derive(Debug)]
pub struct Attached(Mapping);

impl Attached {
    /// The segment in words of eight bytes; what is left over at its end is not shown.
    pub fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

/// A segment, attached for reading alone; `shmdt` when it goes out of scope.
///
/// It shows no atomics: to change one here would be a segmentation fault.
#[derive(Debug)]
pub struct AttachedReadOnly(Mapping);

impl AttachedReadOnly {
    /// How many words of eight bytes it has.
    pub fn len(&self) -> usize {
        self.0.words().len()
    }

    /// Whether it has no word.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A word, as it is now; None beyond the end.
    pub fn load(&self, index: usize) -> Option<u64> {
        // Relaxed: the only order that std::sync::atomic allows on read-only memory.
        self.0.words().get(index).map(|word| word.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removed with the test, also when it fails.
    struct Own(SharedMemory);

    impl Own {
        fn new(key: Key, size: usize, mode: u16) -> Self {
            Self(SharedMemory::create(key, size, Mode::new(mode)).unwrap())
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            let _ = self.0.remove();
        }
    }

    fn own_key() -> Key {
        Key::new(0x5e00_0000 | Pid::current().as_raw() & 0x00ff_ffff)
    }

    #[test]
    fn a_segment_is_found_by_its_key_and_made_only_once() {
        let key = own_key();
        let own = Own::new(key, 100, 0o640);
        assert_eq!(SharedMemory::open(key), Ok(own.0));
        let again = SharedMemory::create(key, 100, Mode::new(0o640)).unwrap_err();
        assert_eq!(again.call(), "shmget");
        assert!(again.already_exists());
        let status = own.0.status().unwrap();
        let permissions = status.permissions;
        assert_eq!((permissions.key, permissions.mode), (key, Mode::new(0o640)));
        assert_eq!(status.size, 100);
        assert_eq!((status.attached, status.is_removed), (0, false));
        assert_eq!(status.maker, Some(Pid::current()));
        own.0.remove().unwrap();
        assert!(SharedMemory::open(key).unwrap_err().is_gone());
    }

    #[test]
    fn words_are_those_that_fit_whole() {
        let own = Own::new(Key::PRIVATE, 31, 0o600);
        assert_eq!(own.0.attach().unwrap().words().len(), 3);
        let reader = own.0.attach_read_only().unwrap();
        assert_eq!((reader.len(), reader.is_empty(), reader.load(3)), (3, false, None));
        assert!(Own::new(Key::PRIVATE, 7, 0o600).0.attach_read_only().unwrap().is_empty());
    }

    #[test]
    fn a_removed_segment_lives_until_the_last_lets_go() {
        let own = Own::new(Key::PRIVATE, 8, 0o600);
        let (first, second) = (own.0.attach().unwrap(), own.0.attach().unwrap());
        own.0.remove().unwrap();
        first.words()[0].store(7, Relaxed);
        drop(first);
        assert_eq!(second.words()[0].load(Relaxed), 7);
        let status = own.0.status().unwrap();
        assert_eq!((status.attached, status.is_removed), (1, true));
        drop(second);
        let gone = own.0.attach().unwrap_err();
        assert!(gone.is_gone());
        let id = own.0.id();
        let line = format!("shmat: shared memory {id}: EINVAL: Invalid argument");
        assert_eq!(gone.to_string(), line);
    }

    #[test]
    fn many_threads_count_without_a_loss() {
        let own = Own::new(Key::PRIVATE, 8, 0o600);
        let attached = own.0.attach().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        attached.words()[0].fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(own.0.attach_read_only().unwrap().load(0), Some(40_000));
    }
}
