//! Noticing that this process is a forked child.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::memory;

/// Identifies the process that took the mark: [`is_current`](Self::is_current) is true in that
/// process, and false in every child that it forks and in their children.
///
/// A destructor that runs in a forked child too can compare marks before it removes something, as
/// that of [`Owned`](crate::Owned) does. To compare pids would not do: a child in another pid
/// namespace can have its parent's pid.
///
/// The mark is a number in a page of memory that the kernel empties in every child
/// (`MADV_WIPEONFORK`, madvise(2)), so raw clone(2) and `_Fork` count as forks too. Processes that
/// share memory (vfork(2), `CLONE_VM`) count as one. Where the kernel cannot empty a page (some
/// emulators), the mark is the pid. Both methods may be called in a signal handler, if the process
/// or an ancestor called one of them before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessMark(u64);

impl ProcessMark {
    /// The mark of the calling process.
    pub fn current() -> Self {
        // Copied by a fork, unlike the page. So a child's number is greater than those of all its
        // ancestors, which are the only processes whose marks it can hold.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let Some(number) = memory::word_wiped_on_fork() else {
            return Self(std::process::id().into());
        };
        let found = number.load(Relaxed);
        if found != 0 {
            return Self(found);
        }
        // No lock, which a fork at the wrong moment would leave held in the child. Threads that
        // come here at the same time draw different numbers, and all take the first one stored.
        let new = LAST.fetch_add(1, Relaxed) + 1;
        Self(number.compare_exchange(0, new, Relaxed, Relaxed).map_or_else(|first| first, |_| new))
    }

    /// Whether the calling process took this mark, and not one of its ancestors.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}
