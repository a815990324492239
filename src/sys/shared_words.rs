//! Memory that a process shares with the children that it forks.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Words of eight bytes, at first zero, that this process shares with every child that it forks
/// while this exists. Dropping it unmaps them from the calling process alone.
#[derive(Debug)]
pub struct SharedWords {
    words: NonNull<AtomicU64>,
    count: NonZeroUsize,
}

impl SharedWords {
    /// Maps new words.
    ///
    /// # Errors
    /// `ENOMEM`: mmap(2).
    pub fn new(count: NonZeroUsize) -> Result<Self, Errno> {
        let size = count.checked_mul(WORD).ok_or(Errno::ENOMEM)?;
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: maps new memory, to which nothing refers yet; mmap(2).
        let words = unsafe { mmap_anonymous(None, size, rights, MapFlags::MAP_SHARED) }?;
        Ok(Self { words: words.cast(), count })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `new` mapped this many words, which are aligned to a page and live as long as
        // self; every value is a valid AtomicU64.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count.get()) }
    }
}

const WORD: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicU64>()).unwrap();

impl Drop for SharedWords {
    fn drop(&mut self) {
        let size = self.count.get() * WORD.get();
        // SAFETY: `new` mapped this memory with this size, and no reference outlives self;
        // munmap(2).
        let _ = unsafe { munmap(self.words.cast(), size) };
    }
}
