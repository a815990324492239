//! Shared memory.

use std::io;
use std::ops::{Deref, Range};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use libc::c_int;

use crate::memory::{Mapping, WORD};
use crate::object::{self, Id, ipc_object, object_status};
use crate::permissions::time;
use crate::{Error, Key, Mode, Permissions, Pid, Settings, SharedMemoryId};

/// A segment of shared memory, named by its id. Copying or dropping this does nothing to it.
///
/// A segment that was removed stays until the last process detaches it, and can still be attached
/// by its id until then: so create, attach and [`remove`](Self::remove) at once, and nothing is
/// left behind however the processes end.
///
/// ```
/// use std::sync::atomic::Ordering::Relaxed;
/// use sysv_ipc::{Key, Mode, SharedMemory};
///
/// let memory = SharedMemory::create(Key::PRIVATE, 4096, Mode::new(0o644))?;
/// let writer = memory.attach()?;
/// memory.remove()?;
/// let reader = memory.attach_read_only()?;
/// writer.words()[3].fetch_add(42, Relaxed);
/// assert_eq!(reader.load(3), Some(42));
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedMemory(SharedMemoryId);

impl SharedMemory {
    /// `shmat(id, NULL, 0)`: attaches the segment. Needs read and write permission.
    pub fn attach(self) -> Result<Attached, Error> {
        self.map(0).map(Attached)
    }

    /// `shmat(id, NULL, SHM_RDONLY)`: attaches the segment for reading only. Needs read permission.
    pub fn attach_read_only(self) -> Result<AttachedReadOnly, Error> {
        self.map(libc::SHM_RDONLY)
    }

    fn map(self, flags: c_int) -> Result<AttachedReadOnly, Error> {
        Mapping::new(self.0.get(), flags)
            .map(AttachedReadOnly)
            .map_err(|(call, errno)| self.error(call, errno))
    }

    /// `shmctl(id, IPC_SET)`: changes owner, group and mode, also while the segment is attached.
    pub fn set(self, settings: &Settings) -> Result<(), Error> {
        object::set(self, |raw| settings.write_to(&mut raw.shm_perm))
    }
}

ipc_object!(SharedMemory(SharedMemoryId), SharedMemoryStatus, shmget(size: usize), shmctl);

object_status! {
    /// What the kernel tells about a segment: `struct shmid_ds`, shmctl(2).
    SharedMemory: SharedMemoryStatus from raw: libc::shmid_ds {
        /// Once the segment is removed, its key is [`Key::PRIVATE`].
        permissions: Permissions = Permissions::from_raw(&raw.shm_perm),
        /// The size it was created with, in bytes.
        size: usize = raw.shm_segsz,
        /// How often it is attached, also more than once by one process.
        attached: u64 = raw.shm_nattch,
        /// The process that created it. None if this pid namespace cannot see it.
        creator: Option<Pid> = Pid::known(raw.shm_cpid),
        /// The process that last attached or detached it. None too if none did.
        last_user: Option<Pid> = Pid::known(raw.shm_lpid),
        /// Whether it vanishes when the last process detaches it (`SHM_DEST`).
        is_removed: bool = u32::from(raw.shm_perm.mode) & SHM_DEST != 0,
        /// When it was last attached, in whole seconds.
        attached_at: Option<SystemTime> = time(raw.shm_atime),
        /// When it was last detached, in whole seconds.
        detached_at: Option<SystemTime> = time(raw.shm_dtime),
        /// When it was created or last changed by `IPC_SET`, in whole seconds.
        changed_at: SystemTime = time(raw.shm_ctime).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

/// `SHM_DEST`, a bit of the mode in `IPC_STAT`; not in libc.
const SHM_DEST: u32 = 0o1000;

/// A segment attached for reading only; `shmdt` when it goes out of scope.
///
/// Other processes may change the memory at any time, so this gives out no slice: you load words,
/// and copy bytes before you look at them. If another process writes meanwhile, the copy may have
/// some of its bytes. No atomics either, since writing to one would be a segmentation fault.
#[derive(Debug)]
pub struct AttachedReadOnly(Mapping);

impl AttachedReadOnly {
    /// The size of the segment, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// False: the kernel makes no empty segments.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word of eight bytes at an index. None if it is not wholly within the segment.
    pub fn load(&self, index: usize) -> Option<u64> {
        // Relaxed: the only order that std::sync::atomic allows on read-only memory.
        self.whole_words().get(index).map(|word| word.load(Relaxed))
    }

    fn whole_words(&self) -> &[AtomicU64] {
        &self.0.words()[..self.len() / WORD]
    }

    /// Fills `into` with the bytes from `at` on. Panics if they reach beyond the segment's end.
    pub fn copy_to(&self, at: usize, mut into: &mut [u8]) {
        let words = self.words_of(at, into.len());
        if self.0.copy_to(at, into) {
            return;
        }
        // Whole words alone, so that no two accesses of different size can race: Rust's memory
        // model does not allow that. The bytes before and after them are taken from words, too.
        let mut first = at % WORD;
        for word in words {
            let count = into.len().min(WORD - first);
            let part = into.split_off_mut(..count).unwrap_or_default();
            part.copy_from_slice(&word.load(Relaxed).to_ne_bytes()[first..][..count]);
            first = 0;
        }
    }

    /// Copies a range in pieces that fit in the CPU's first cache, and shows each copy, to checksum
    /// the range for example. Panics if the range is beyond the segment's end.
    pub fn for_each_copy(&self, range: Range<usize>, mut show: impl FnMut(&[u8])) {
        let mut copy = [0; 8192];
        let mut at = range.start;
        while at < range.end {
            let copy = &mut copy[..(range.end - at).min(8192)];
            self.copy_to(at, copy);
            show(copy);
            at += copy.len();
        }
    }

    /// The words that hold `len` bytes from `at` on.
    fn words_of(&self, at: usize, len: usize) -> &[AtomicU64] {
        let end = at.checked_add(len).filter(|&end| end <= self.len());
        let end = end.expect("beyond the segment's end");
        &self.0.words()[at / WORD..end.div_ceil(WORD)]
    }

    /// `write(fd, segment + range.start, range.len())`: writes a range of the segment to a file and
    /// returns the number of bytes written. Panics if the range is beyond the segment's end.
    ///
    /// The kernel copies straight out of the segment. If another process changes the range
    /// meanwhile, you cannot tell which bytes were written.
    pub fn write_to(&self, file: impl AsFd, range: Range<usize>) -> io::Result<usize> {
        self.0.write(file.as_fd(), range).map_err(io::Error::from_raw_os_error)
    }
}

/// A segment attached for reading and writing; it can do all that [`AttachedReadOnly`] can. A
/// forked child has it attached too, and detaches its own.
#[derive(Debug)]
pub struct Attached(AttachedReadOnly);

impl Attached {
    /// The segment in words of eight bytes. Bytes at its end that fill no word are not shown.
    pub fn words(&self) -> &[AtomicU64] {
        self.0.whole_words()
    }

    /// Copies bytes into the segment, from `at` on. Panics if they do not fit there.
    pub fn copy_from(&self, at: usize, mut bytes: &[u8]) {
        let mut first = at % WORD;
        // Whole words alone, as in `copy_to`.
        for word in self.words_of(at, bytes.len()) {
            let (part, rest) = bytes.split_at(bytes.len().min(WORD - first));
            match part.try_into() {
                Ok(whole) => word.store(u64::from_ne_bytes(whole), Relaxed),
                Err(_) => replace_part(word, first, part),
            }
            (bytes, first) = (rest, 0);
        }
    }

    /// `read(fd, segment + range.start, range.len())`: reads from a file into a range of the
    /// segment, with no copy in between. Returns how many bytes. Panics if the range is beyond it.
    pub fn read_from(&self, file: impl AsFd, range: Range<usize>) -> io::Result<usize> {
        self.0.0.read(file.as_fd(), range).map_err(io::Error::from_raw_os_error)
    }
}

impl Deref for Attached {
    type Target = AttachedReadOnly;

    fn deref(&self) -> &AttachedReadOnly {
        &self.0
    }
}

/// Replaces some of a word's bytes, and none of the others, whoever changes them meanwhile.
fn replace_part(word: &AtomicU64, at: usize, part: &[u8]) {
    let replaced = |old: u64| {
        let mut bytes = old.to_ne_bytes();
        bytes[at..][..part.len()].copy_from_slice(part);
        Some(u64::from_ne_bytes(bytes))
    };
    let _ = word.fetch_update(Relaxed, Relaxed, replaced);
}
