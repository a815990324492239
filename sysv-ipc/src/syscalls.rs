//! The system calls themselves. All unsafe code of `sysv` is here and in `message`.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use libc::{c_int, c_long, c_ushort};
use nix::errno::Errno;

use super::{Error, Message, Object};

/// `MSG_STAT` without the check for read permission (Linux 4.17); not in libc.
pub(super) const MSG_STAT_ANY: c_int = 13 | (libc::IPC_STAT & 0x100);

pub(super) fn ftok(path: &CStr, project: u8) -> Result<libc::key_t, Errno> {
    // SAFETY: path is a C string that outlives the call; ftok(3).
    Errno::result(unsafe { libc::ftok(path.as_ptr(), c_int::from(project)) })
}

pub(super) fn msgget(key: libc::key_t, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: takes two integers; msgget(2).
    Errno::result(unsafe { libc::msgget(key, flags) })
}

// Both without libc's wrappers: these are points of cancellation, which in a process with threads
// costs as much as a tenth of the call. Source: sysdeps/unix/sysv/linux/msgsnd.c of glibc.

pub(super) fn msgsnd(id: c_int, message: Message<'_>, flags: c_int) -> Result<(), Errno> {
    let (block, len) = (message.as_ptr(), message.len());
    // SAFETY: message is a msgbuf of len bytes after its mtype and outlives the call; msgop(2).
    Errno::result(unsafe { libc::syscall(libc::SYS_msgsnd, id, block, len, flags) }).map(drop)
}

/// Receives into a msgbuf with room for this many bytes after its mtype; how many came.
pub(super) fn msgrcv(
    id: c_int,
    block: &mut [c_long],
    room: usize,
    mtype: c_long,
    flags: c_int,
) -> Result<usize, Errno> {
    assert!(room <= size_of_val(&block[1..]), "more room than there is");
    let block = block.as_mut_ptr();
    // SAFETY: block is a msgbuf with room bytes after its mtype, lent to this call alone; msgop(2).
    Errno::result(unsafe { libc::syscall(libc::SYS_msgrcv, id, block, room, mtype, flags) })
        .map(|len| usize::try_from(len).unwrap_or(0))
}

pub(super) fn msgctl_stat(id: c_int) -> Result<libc::msqid_ds, Errno> {
    let mut status = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: status is a msqid_ds for IPC_STAT to fill in; msgctl(2).
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_STAT, status.as_mut_ptr()) })?;
    // SAFETY: integers only, of which zero is one; and the kernel filled them in.
    Ok(unsafe { status.assume_init() })
}

/// `MSG_STAT` or `MSG_STAT_ANY`, which take an index and return the id of the queue there.
pub(super) fn msgctl_stat_index(
    index: c_int,
    command: c_int,
) -> Result<(c_int, libc::msqid_ds), Errno> {
    let mut status = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: status is a msqid_ds for both commands to fill in; msgctl(2).
    let id = Errno::result(unsafe { libc::msgctl(index, command, status.as_mut_ptr()) })?;
    // SAFETY: integers only, of which zero is one; and the kernel filled them in.
    Ok((id, unsafe { status.assume_init() }))
}

pub(super) fn msgctl_set(id: c_int, mut status: libc::msqid_ds) -> Result<(), Errno> {
    // SAFETY: IPC_SET reads a msqid_ds, which outlives the call; msgctl(2).
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_SET, &raw mut status) }).map(drop)
}

pub(super) fn msgctl_remove(id: c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no argument; msgctl(2).
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// `IPC_INFO` or `MSG_INFO`, with the highest index in use.
pub(super) fn msgctl_info(command: c_int) -> Result<(c_int, libc::msginfo), Error> {
    let mut info = MaybeUninit::<libc::msginfo>::zeroed();
    // SAFETY: both commands fill in a msginfo where msgctl's prototype says msqid_ds; msgctl(2).
    let last = Errno::result(unsafe { libc::msgctl(0, command, info.as_mut_ptr().cast()) })
        .map_err(|errno| Error::new("msgctl", Object::Namespace, errno))?;
    // SAFETY: integers only, of which zero is one; and the kernel filled them in.
    Ok((last, unsafe { info.assume_init() }))
}

pub(super) fn semget(key: libc::key_t, count: c_int, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: takes three integers; semget(2).
    Errno::result(unsafe { libc::semget(key, count, flags) })
}

/// One operation of a [`semop`]: on the first semaphore of the set.
pub(super) const fn operation(change: i16, flags: c_int) -> libc::sembuf {
    libc::sembuf { sem_num: 0 as c_ushort, sem_op: change, sem_flg: flags as i16 }
}

pub(super) fn semop<const N: usize>(id: c_int, mut all: [libc::sembuf; N]) -> Result<(), Errno> {
    // SAFETY: all holds N operations and outlives the call; semop(2).
    Errno::result(unsafe { libc::semop(id, all.as_mut_ptr(), N) }).map(drop)
}

/// `GETVAL` or `GETPID` of the first semaphore of the set.
pub(super) fn semctl_get(id: c_int, command: c_int) -> Result<c_int, Errno> {
    // SAFETY: neither command takes a fourth argument; semctl(2).
    Errno::result(unsafe { libc::semctl(id, 0, command) })
}

pub(super) fn semctl_stat(id: c_int) -> Result<libc::semid_ds, Errno> {
    let mut status = MaybeUninit::<libc::semid_ds>::zeroed();
    // SAFETY: IPC_STAT takes a pointer to a semid_ds to fill in; semctl(2).
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_STAT, status.as_mut_ptr()) })?;
    // SAFETY: integers only, of which zero is one; and the kernel filled them in.
    Ok(unsafe { status.assume_init() })
}

pub(super) fn semctl_remove(id: c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no fourth argument; semctl(2).
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_RMID) }).map(drop)
}

pub(super) fn shmget(key: libc::key_t, size: usize, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: takes three integers; shmget(2).
    Errno::result(unsafe { libc::shmget(key, size, flags) })
}

pub(super) fn shmctl_stat(id: c_int) -> Result<libc::shmid_ds, Errno> {
    let mut status = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: status is a shmid_ds for IPC_STAT to fill in; shmctl(2).
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_STAT, status.as_mut_ptr()) })?;
    // SAFETY: integers only, of which zero is one; and the kernel filled them in.
    Ok(unsafe { status.assume_init() })
}

pub(super) fn shmctl_remove(id: c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no argument; shmctl(2).
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// A segment in this process's memory, detached with this.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: it is an address and a length; what lies there is shared with other processes anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above, and through a shared reference it gives out nothing but atomics.
unsafe impl Sync for Mapping {}

/// Attaches a segment where the kernel likes; on failure, the call that failed.
pub(super) fn shmat(id: c_int, flags: c_int) -> Result<Mapping, (&'static str, Errno)> {
    // SAFETY: with no address given, no memory in use is replaced; shmat(2).
    let start = unsafe { libc::shmat(id, std::ptr::null(), flags) };
    if start.addr() == usize::MAX {
        return Err(("shmat", Errno::last()));
    }
    let start = NonNull::new(start.cast()).ok_or(("shmat", Errno::EINVAL))?;
    let mut mapping = Mapping { start, words: 0 };
    // Asked only now: what is attached keeps its id and its size, whatever others do.
    let status = shmctl_stat(id).map_err(|errno| ("shmctl", errno))?;
    mapping.words = status.shm_segsz / size_of::<AtomicU64>();
    Ok(mapping)
}

impl Mapping {
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the segment has that many words, at the start of a page and zero at first; it
        // cannot shrink, and stays until self is dropped. Every access is atomic: shmat(2).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: attached by shmat and nobody borrows from it any more; shmdt(2).
        unsafe { libc::shmdt(self.start.as_ptr().cast()) };
    }
}

/// A word that is zero at first and again in every forked child. None where the kernel cannot do
/// that.
pub(super) fn word_wiped_on_fork() -> Option<&'static AtomicU64> {
    static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
    /// Its address is stored to remember that there is no such word.
    static NO_WORD: AtomicU64 = AtomicU64::new(0);
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        let new = map_page_wiped_on_fork().unwrap_or((&raw const NO_WORD).cast_mut());
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        // Threads may each map a page at the same time; the first one stored stays.
        word = match WORD.compare_exchange(word, new, success, failure) {
            Ok(_) => new,
            Err(first) => {
                if !std::ptr::eq(new, &raw const NO_WORD) {
                    // SAFETY: this thread mapped the page and nobody else saw its address; munmap(2).
                    unsafe { libc::munmap(new.cast(), size_of::<AtomicU64>()) };
                }
                first
            }
        };
    }
    // SAFETY: the word is static or in a page that stays mapped, and any bytes are a valid u64.
    (!std::ptr::eq(word, &raw const NO_WORD)).then(|| unsafe { &*word })
}

fn map_page_wiped_on_fork() -> Option<*mut AtomicU64> {
    let (size, rights) = (size_of::<AtomicU64>(), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: with no address given, no memory in use is replaced; mmap(2).
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, rights, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page was mapped above; the advice changes it in forked children only; madvise(2).
    if unsafe { libc::madvise(page, size, libc::MADV_WIPEONFORK) } == -1 {
        // SAFETY: the page was mapped above and nobody else saw its address; munmap(2).
        unsafe { libc::munmap(page, size) };
        return None;
    }
    Some(page.cast())
}
