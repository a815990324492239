//! The system calls. All unsafe code of the crate is here and in `memory`.

use std::ffi::{CStr, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use libc::{c_int, c_long, c_ulong};

use crate::{Queue, SemaphoreSet, SharedMemory};

/// An errno: why a system call failed.
pub(crate) type Errno = c_int;

/// What a call returned, or the errno if it returned -1.
pub(crate) fn check<T: PartialEq + From<i8>>(returned: T) -> Result<T, Errno> {
    if returned == T::from(-1) { Err(last_errno()) } else { Ok(returned) }
}

pub(crate) fn last_errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// What differs between the control calls of the three kinds of object.
///
/// # Safety
/// `control` makes the control call of the kind. `RawStatus` is the structure that its `IPC_STAT`
/// fills in, `RawLimits` that of `IPC_INFO`, and `RawUsage` that of `INFO`. All zeroes are a valid
/// value of each.
pub unsafe trait Kind: Copy {
    type RawStatus;
    type RawLimits;
    type RawUsage;
    /// The name of the control call.
    const CONTROL: &'static str;
    /// `MSG_STAT_ANY` and its like: `IPC_STAT` by index, for which no permission is needed.
    const STAT_ANY: c_int;
    /// `MSG_INFO` and its like.
    const INFO: c_int;

    /// # Safety
    /// `argument` points to what the command reads or fills in, or is null if that is nothing.
    unsafe fn control(id: c_int, command: c_int, argument: *mut c_void) -> c_int;
}

/// Set on architectures where libc's structures need it for 64 bits of time.
const TIME_64: c_int = libc::IPC_STAT & 0x100;

// SAFETY: the structures are those of msgctl(2), and consist of integers.
unsafe impl Kind for Queue {
    type RawStatus = libc::msqid_ds;
    type RawLimits = libc::msginfo;
    type RawUsage = libc::msginfo;
    const CONTROL: &'static str = "msgctl";
    const STAT_ANY: c_int = 13 | TIME_64;
    const INFO: c_int = libc::MSG_INFO;

    unsafe fn control(id: c_int, command: c_int, argument: *mut c_void) -> c_int {
        // SAFETY: the caller answers for the argument; msgctl(2).
        unsafe { libc::msgctl(id, command, argument.cast()) }
    }
}

// SAFETY: the structures are those of semctl(2), and consist of integers.
unsafe impl Kind for SemaphoreSet {
    type RawStatus = libc::semid_ds;
    type RawLimits = libc::seminfo;
    type RawUsage = libc::seminfo;
    const CONTROL: &'static str = "semctl";
    const STAT_ANY: c_int = libc::SEM_STAT_ANY;
    const INFO: c_int = libc::SEM_INFO;

    unsafe fn control(id: c_int, command: c_int, argument: *mut c_void) -> c_int {
        // SAFETY: the caller answers for the argument, in C a union of pointers; semctl(2).
        unsafe { libc::semctl(id, 0, command, argument) }
    }
}

// SAFETY: the structures are those of shmctl(2), and consist of integers.
unsafe impl Kind for SharedMemory {
    type RawStatus = libc::shmid_ds;
    type RawLimits = ShmInfo;
    type RawUsage = ShmUsage;
    const CONTROL: &'static str = "shmctl";
    const STAT_ANY: c_int = 15 | TIME_64;
    const INFO: c_int = 14;

    unsafe fn control(id: c_int, command: c_int, argument: *mut c_void) -> c_int {
        // SAFETY: the caller answers for the argument; shmctl(2).
        unsafe { libc::shmctl(id, command, argument.cast()) }
    }
}

/// `struct shminfo`, which libc lacks.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ShmInfo {
    pub(crate) shmmax: c_ulong,
    pub(crate) shmmin: c_ulong,
    pub(crate) shmmni: c_ulong,
    shmseg: c_ulong,
    pub(crate) shmall: c_ulong,
    reserved: [c_ulong; 4],
}

/// `struct shm_info`, which libc lacks.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ShmUsage {
    pub(crate) used_ids: c_int,
    pub(crate) shm_tot: c_ulong,
    pub(crate) shm_rss: c_ulong,
    pub(crate) shm_swp: c_ulong,
    swap: [c_ulong; 2],
}

/// Makes a control call that fills in a `T`.
///
/// # Safety
/// The command fills in a `T`, of which all zeroes are a valid value.
unsafe fn filled<K: Kind, T>(id: c_int, command: c_int) -> Result<(c_int, T), Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: value is what the command fills in, by this function's contract.
    let returned = check(unsafe { K::control(id, command, value.as_mut_ptr().cast()) })?;
    // SAFETY: zeroes are valid, and the kernel wrote integers over them.
    Ok((returned, unsafe { value.assume_init() }))
}

/// `IPC_STAT`.
pub(crate) fn stat<K: Kind>(id: c_int) -> Result<K::RawStatus, Errno> {
    // SAFETY: IPC_STAT fills in a RawStatus, by the contract of Kind.
    unsafe { filled::<K, _>(id, libc::IPC_STAT) }.map(|(_, status)| status)
}

/// `MSG_STAT_ANY` and its like: the id and status of the object at an index of the kernel's table.
pub(crate) fn stat_any<K: Kind>(index: c_int) -> Result<(c_int, K::RawStatus), Errno> {
    // SAFETY: STAT_ANY fills in a RawStatus, by the contract of Kind.
    unsafe { filled::<K, _>(index, K::STAT_ANY) }
}

/// `IPC_SET`.
pub(crate) fn set<K: Kind>(id: c_int, mut status: K::RawStatus) -> Result<(), Errno> {
    // SAFETY: IPC_SET reads a RawStatus, which outlives the call.
    check(unsafe { K::control(id, libc::IPC_SET, (&raw mut status).cast()) }).map(drop)
}

/// `IPC_RMID`.
pub(crate) fn remove<K: Kind>(id: c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no argument.
    check(unsafe { K::control(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// `IPC_INFO`, with the highest index of the kernel's table in use; 0 also if none is.
pub(crate) fn limits<K: Kind>() -> Result<(c_int, K::RawLimits), Errno> {
    // SAFETY: IPC_INFO fills in a RawLimits, by the contract of Kind.
    unsafe { filled::<K, _>(0, libc::IPC_INFO) }
}

/// `MSG_INFO` and its like, with the highest index in use.
pub(crate) fn usage<K: Kind>() -> Result<(c_int, K::RawUsage), Errno> {
    // SAFETY: INFO fills in a RawUsage, by the contract of Kind.
    unsafe { filled::<K, _>(0, K::INFO) }
}

pub(crate) fn ftok(path: &CStr, project: u8) -> Result<libc::key_t, Errno> {
    // SAFETY: path is a C string that outlives the call; ftok(3).
    check(unsafe { libc::ftok(path.as_ptr(), c_int::from(project)) })
}

pub(crate) fn msgget(key: libc::key_t, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: takes two integers; msgget(2).
    check(unsafe { libc::msgget(key, flags) })
}

// Not libc's msgsnd and msgrcv: those are cancellation points, which in a process with threads
// costs up to a tenth of the call. Source: sysdeps/unix/sysv/linux/msgsnd.c of glibc.

/// Sends a msgbuf of `len` bytes after its mtype.
#[inline]
pub(crate) fn msgsnd(id: c_int, block: &[c_long], len: usize, flags: c_int) -> Result<(), Errno> {
    assert!(len <= size_of_val(&block[1..]), "the text is longer than the block");
    let block = block.as_ptr();
    // SAFETY: block is a msgbuf of len bytes after its mtype and outlives the call; msgop(2).
    check(unsafe { libc::syscall(libc::SYS_msgsnd, id, block, len, flags) }).map(drop)
}

/// Receives into a msgbuf with room for this many bytes after its mtype; returns how many came.
pub(crate) fn msgrcv(
    id: c_int,
    block: &mut [c_long],
    room: usize,
    mtype: c_long,
    flags: c_int,
) -> Result<usize, Errno> {
    assert!(room <= size_of_val(&block[1..]), "the text may be longer than the block");
    let block = block.as_mut_ptr();
    // SAFETY: block is a msgbuf with room bytes after its mtype, lent to this call alone; msgop(2).
    check(unsafe { libc::syscall(libc::SYS_msgrcv, id, block, room, mtype, flags) })
        .map(|len| usize::try_from(len).unwrap_or(0))
}

pub(crate) fn semget(key: libc::key_t, count: u16, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: takes three integers; semget(2).
    check(unsafe { libc::semget(key, count.into(), flags) })
}

/// `semtimedop`, or `semop` without a timeout.
pub(crate) fn semop(
    id: c_int,
    operations: &mut [libc::sembuf],
    timeout: Option<Duration>,
) -> Result<(), Errno> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let (first, count) = (operations.as_mut_ptr(), operations.len());
    // SAFETY: first is count operations, timeout null or a timespec; they outlive this; semop(2).
    check(unsafe { libc::syscall(libc::SYS_semtimedop, id, first, count, timeout) }).map(drop)
}

/// `GETVAL`, `GETPID`, `GETNCNT`, `GETZCNT` or `SETVAL` of one semaphore.
pub(crate) fn semctl_one(
    id: c_int,
    index: u16,
    command: c_int,
    value: u16,
) -> Result<c_int, Errno> {
    use libc::{GETNCNT, GETPID, GETVAL, GETZCNT, SETVAL};
    assert!([GETVAL, GETPID, GETNCNT, GETZCNT, SETVAL].contains(&command));
    // SAFETY: SETVAL takes an int as its fourth argument, the others take none; semctl(2).
    check(unsafe { libc::semctl(id, c_int::from(index), command, c_int::from(value)) })
}

pub(crate) fn shmget(key: libc::key_t, size: usize, flags: c_int) -> Result<c_int, Errno> {
    // SAFETY: takes three integers; shmget(2).
    check(unsafe { libc::shmget(key, size, flags) })
}
