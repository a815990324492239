//! Special memory: attached segments, a page wiped on fork, guarded numbers, blocks as bytes.

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use libc::{c_int, c_long};

use crate::SharedMemory;
use crate::syscalls::{self, Errno, check, last_errno};

/// The size of a word, in bytes.
pub(crate) const WORD: usize = size_of::<AtomicU64>();

/// A segment in this process's memory; detached when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<AtomicU64>,
    /// In bytes.
    len: usize,
}

// SAFETY: it is an address and a length, and any thread may detach the segment.
unsafe impl Send for Mapping {}
// SAFETY: all access is by atomic words, or in bulk by the kernel or by assembly. To the compiler,
// these are like what other processes do.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Attaches a segment where the kernel likes; on failure, the call that failed.
    pub(crate) fn new(id: c_int, flags: c_int) -> Result<Self, (&'static str, Errno)> {
        // SAFETY: with no address given, no memory in use is replaced; shmat(2).
        let start = unsafe { libc::shmat(id, std::ptr::null(), flags) };
        if start.addr() == usize::MAX {
            return Err(("shmat", last_errno()));
        }
        let start = NonNull::new(start.cast()).ok_or(("shmat", libc::EINVAL))?;
        let mut mapping = Self { start, len: 0 };
        // Only now: an attached segment keeps its id and its size, whatever others do.
        let status = syscalls::stat::<SharedMemory>(id).map_err(|errno| ("shmctl", errno))?;
        mapping.len = status.shm_segsz;
        Ok(mapping)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The segment as words. The last one may have bytes beyond the segment's end.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let count = self.len.div_ceil(WORD);
        // SAFETY: the segment starts at a page and takes whole pages, zero at first, so the last
        // word is there too. It cannot shrink, and stays attached until self is dropped. Other
        // processes may write meanwhile, which atomics allow; shmat(2).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), count) }
    }

    /// `read(fd, start + range.start, range.len())`.
    pub(crate) fn read(&self, fd: BorrowedFd<'_>, range: Range<usize>) -> Result<usize, Errno> {
        let (start, len) = self.part(range);
        // SAFETY: the kernel writes len bytes of the segment, as another process would; read(2).
        check(unsafe { libc::read(fd.as_raw_fd(), start.cast(), len) }).map(isize::unsigned_abs)
    }

    /// `write(fd, start + range.start, range.len())`.
    pub(crate) fn write(&self, fd: BorrowedFd<'_>, range: Range<usize>) -> Result<usize, Errno> {
        let (start, len) = self.part(range);
        // SAFETY: len bytes from start are within the segment, and the kernel reads them; write(2).
        check(unsafe { libc::write(fd.as_raw_fd(), start.cast(), len) }).map(isize::unsigned_abs)
    }

    /// Copies bytes out of the segment, as fast as the CPU can. False: not on this CPU.
    #[cfg_attr(not(all(target_arch = "x86_64", target_pointer_width = "64")), expect(unused))]
    pub(crate) fn copy_to(&self, at: usize, into: &mut [u8]) -> bool {
        #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
        {
            let (from, len) = self.part(at..at + into.len());
            // SAFETY: it reads len bytes of the segment, and writes as many to `into`. The compiler
            // knows nothing of what assembly reads: if another process writes there meanwhile, the
            // copy may have some of its bytes, as that of a system call would.
            unsafe {
                std::arch::asm!(
                    "rep movsb",
                    inout("rcx") len => _,
                    inout("rsi") from => _,
                    inout("rdi") into.as_mut_ptr() => _,
                    options(nostack, preserves_flags)
                );
            }
        }
        cfg!(all(target_arch = "x86_64", target_pointer_width = "64"))
    }

    fn part(&self, range: Range<usize>) -> (*mut u8, usize) {
        assert!(range.start <= range.end && range.end <= self.len, "beyond the segment's end");
        // SAFETY: the offset is within the segment.
        (unsafe { self.start.as_ptr().cast::<u8>().add(range.start) }, range.len())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: attached by shmat, and nobody borrows from it any more; shmdt(2).
        unsafe { libc::shmdt(self.start.as_ptr().cast()) };
    }
}

/// A word that is zero at first and in every forked child. None if the kernel cannot do that.
pub(crate) fn word_wiped_on_fork() -> Option<&'static AtomicU64> {
    static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
    /// Stands for "the kernel cannot do this": `WORD` then holds the address of this.
    static NO_WORD: AtomicU64 = AtomicU64::new(0);
    let no_word = (&raw const NO_WORD).cast_mut();
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        let new = map_page_wiped_on_fork().unwrap_or(no_word);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        // Threads may each map a page at the same time. The first one stored is used; others stay.
        word =
            WORD.compare_exchange(word, new, success, failure).map_or_else(|first| first, |_| new);
    }
    // SAFETY: the word is static or in a page that stays mapped, and any bytes are a valid u64.
    (word != no_word).then(|| unsafe { &*word })
}

fn map_page_wiped_on_fork() -> Option<*mut AtomicU64> {
    let page = map(WORD, libc::PROT_READ | libc::PROT_WRITE).ok()?;
    // SAFETY: mapped above, and the advice changes it in forked children only; madvise(2).
    let advised = unsafe { libc::madvise(page, WORD, libc::MADV_WIPEONFORK) };
    (advised == 0).then_some(page.cast())
}

/// New memory, all zero, starting at a page.
fn map(size: usize, rights: c_int) -> Result<*mut c_void, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: with no address given, no memory in use is replaced; mmap(2).
    let start = unsafe { libc::mmap(std::ptr::null_mut(), size, rights, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(last_errno()) } else { Ok(start) }
}

/// `GETALL` or `SETALL`: gets or sets all values of a semaphore set. `EFAULT` if it has more
/// semaphores than there are values.
///
/// These calls take no length, and the id can mean a larger set than a moment ago. So they get a
/// copy of the values that ends where memory cannot be accessed.
pub(crate) fn semctl_all(id: c_int, command: c_int, values: &mut [u16]) -> Result<(), Errno> {
    /// A multiple of every architecture's page size.
    const GUARD: usize = 64 << 10;
    assert!([libc::GETALL, libc::SETALL].contains(&command));
    let len = size_of_val(values);
    let size = len.next_multiple_of(GUARD);
    let start = map(size + GUARD, libc::PROT_NONE)?;
    // SAFETY: mapped above, and not in use yet; mprotect(2).
    let mut outcome =
        check(unsafe { libc::mprotect(start, size, libc::PROT_READ | libc::PROT_WRITE) });
    if outcome.is_ok() {
        // SAFETY: the copy is within the first `size` bytes.
        let first = unsafe { start.byte_add(size - len) }.cast();
        // SAFETY: they can be accessed, are zero at first, and nothing else uses them.
        let copy = unsafe { std::slice::from_raw_parts_mut(first, values.len()) };
        copy.copy_from_slice(values);
        // SAFETY: the kernel accesses as many values as the set has semaphores, but stops at the
        // end of the copy, where memory cannot be accessed; semctl(2).
        outcome = check(unsafe { libc::semctl(id, 0, command, copy.as_mut_ptr()) });
        values.copy_from_slice(copy);
    }
    // SAFETY: mapped above, and nobody borrows from it any more; munmap(2).
    unsafe { libc::munmap(start, size + GUARD) };
    outcome.map(drop)
}

/// A block of longs as bytes.
pub(crate) fn bytes(block: &[c_long]) -> &[u8] {
    // SAFETY: any initialised memory is valid as bytes, which need no alignment.
    unsafe { std::slice::from_raw_parts(block.as_ptr().cast(), size_of_val(block)) }
}

/// A block of longs as bytes that can be changed.
pub(crate) fn bytes_mut(block: &mut [c_long]) -> &mut [u8] {
    // SAFETY: as in `bytes`, and any bytes make valid longs; the borrow is unique.
    unsafe { std::slice::from_raw_parts_mut(block.as_mut_ptr().cast(), size_of_val(block)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_stops_at_the_guard() {
        let id = syscalls::semget(libc::IPC_PRIVATE, 3, 0o600).unwrap();
        let outcomes =
            [2, 3, 40_000].map(|count| semctl_all(id, libc::GETALL, &mut vec![0; count]));
        syscalls::remove::<crate::SemaphoreSet>(id).unwrap();
        assert_eq!(outcomes, [Err(libc::EFAULT), Ok(()), Ok(())]);
    }
}
