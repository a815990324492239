//! The server's side of the counters.

use std::cell::OnceCell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, SystemTime};

use sysv_ipc::{Attached, Error, Key, Owned, QueueId, SharedMemory};

use super::layout::{BOUNDS, MAGIC, MODE, NO_QUEUE, SIZE, VERSION, word};
use super::reason::{FailureReason, RefusalReason};
use crate::sys::getpid;

/// Adds to the counters of a server, in shared memory that its forked children inherit.
///
/// Until it is published it counts nothing. The process that made the segment removes it on drop.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// Removed before it is detached: until then no other segment can have its id.
    segment: OnceCell<(Owned<SharedMemory>, Attached)>,
}

impl Writer {
    /// Makes the counters of a server. It is an error if a segment exists under the key.
    pub(crate) fn publish(
        &self,
        key: Key,
        queue: QueueId,
        children_limit: usize,
    ) -> Result<(), Error> {
        let owned = Owned::new(SharedMemory::create(key, SIZE, MODE)?);
        let memory = owned.attach()?;
        let _ = self.segment.set((owned, memory));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.set(word::VERSION, VERSION);
        self.name_queue(queue);
        self.set(word::SERVER, getpid().as_raw().unsigned_abs().into());
        self.set(word::STARTED, now.as_secs());
        self.set(word::CHILDREN_LIMIT, children_limit as u64);
        if let Some(magic) = self.word(word::MAGIC) {
            magic.store(MAGIC, Release);
        }
        Ok(())
    }

    pub(crate) fn is_published(&self) -> bool {
        self.segment.get().is_some()
    }

    /// Names the request queue: a new one replaces a queue that somebody removed.
    pub(crate) fn name_queue(&self, queue: QueueId) {
        self.set(word::QUEUE, u64::try_from(queue.get()).unwrap_or(NO_QUEUE));
    }

    pub(crate) fn received(&self) {
        self.add(word::REQUESTS, 1);
    }

    pub(crate) fn refused(&self, reason: RefusalReason) {
        self.add(word::REFUSED + reason as usize, 1);
    }

    /// `died`: how many died while they answered, since the start.
    pub(crate) fn set_children(&self, now: usize, hung: usize, died: u64) {
        self.set(word::CHILDREN, now as u64);
        self.set(word::HUNG_CHILDREN, hung as u64);
        if let Some(peak) = self.word(word::CHILDREN_PEAK) {
            peak.fetch_max(now as u64, Relaxed);
        }
        self.set(word::FAILURES + FailureReason::ChildDied as usize, died);
    }

    pub(crate) fn set_sessions(&self, now: usize, idle: usize) {
        self.set(word::SESSIONS, now as u64);
        self.set(word::IDLE_SESSIONS, idle as u64);
    }

    pub(crate) fn question(&self) {
        self.add(word::QUESTIONS, 1);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.add(word::BYTES_SENT, bytes);
    }

    pub(crate) fn completed(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.add(word::TRANSFERS + bucket, 1);
        self.add(word::TRANSFER_NANOSECONDS, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a window that could not be made. Returns how many there were before; 1 without
    /// counters, so that no child logs it.
    pub(crate) fn no_window(&self) -> u64 {
        self.word(word::NO_WINDOW).map_or(1, |word| word.fetch_add(1, Relaxed))
    }

    pub(crate) fn failed(&self, reason: FailureReason) {
        self.add(word::FAILURES + reason as usize, 1);
    }

    pub(crate) fn client_gone(&self) {
        self.add(word::CLIENTS_GONE, 1);
    }

    /// Counts down the yields to skip. False: none is left.
    pub(crate) fn skip_yield(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        let left = self.word(word::YIELDS_TO_SKIP);
        left.is_none_or(|left| left.fetch_update(Relaxed, Relaxed, one_less).is_ok())
    }

    /// Lets the next children skip their yields.
    pub(crate) fn skip_yields(&self, count: u64) {
        self.set(word::YIELDS_TO_SKIP, count);
    }

    /// Removes the segment, so that no key finds it. Children that have it attached keep counting.
    pub(crate) fn withdraw(&self) {
        if let Some((segment, _)) = self.segment.get() {
            let _ = segment.remove();
        }
    }

    // Relaxed: no word depends on another.

    fn add(&self, index: usize, value: u64) {
        if let Some(word) = self.word(index) {
            word.fetch_add(value, Relaxed);
        }
    }

    fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.word(index) {
            word.store(value, Relaxed);
        }
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.segment.get().map(|(_, memory)| &memory.words()[index])
    }
}
