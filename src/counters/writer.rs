//! The server's side: the segment is made by the start rules, added to, and removed at the stop.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, SystemTime};

use crate::sys::{geteuid, getpid};
use sysv_ipc::{Pid, Uid};

use super::layout::{BOUNDS, Failure, MAGIC, MODE, NO_QUEUE, Refused, SIZE, VERSION, word};
use sysv_ipc::{Attached, Error, Key, QueueId, SharedMemory};

/// The counters of a server that holds the server lock, in shared memory that forked children have in
/// common with it. The segment is removed when this goes, in the process that made it.
///
/// Nothing is counted where no memory was to be had.
#[derive(Debug)]
pub struct Writer {
    segment: Option<(SharedMemory, Attached)>,
    maker: Pid,
}

/// Why there is no segment under the key.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("the segment under the key belongs to {} (as root: ipcrm -M KEY)", user(*.0))]
    Foreign(Option<Uid>),
    #[error("the segment under the key is another program's (if nothing needs it: ipcrm -M KEY)")]
    AnotherPrograms,
    #[error("somebody makes a segment under the key again and again")]
    Contended,
    #[error(transparent)]
    Os(#[from] Error),
}

fn user(uid: Option<Uid>) -> String {
    uid.map_or_else(|| "another user".to_owned(), |uid| format!("uid {uid}"))
}

impl Writer {
    /// Puts new counters under a key, for the server of this request queue. Only for who holds the
    /// server lock.
    ///
    /// A server can do without: what stands in the way goes to the log, and nothing is counted.
    pub fn publish(key: Key, queue: QueueId, most_allowed: usize) -> Self {
        let segment = create_by_rules(key).and_then(attach);
        let segment = segment
            .inspect_err(|obstacle| {
                tracing::warn!(%key, reason = obstacle.to_string(), "nothing is counted");
            })
            .ok();
        let figures = Self { segment, maker: getpid() };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        figures.set(word::VERSION, VERSION);
        figures.name_queue(queue);
        figures.set(word::SERVER, getpid().as_raw().unsigned_abs().into());
        figures.set(word::STARTED, now.as_secs());
        figures.set(word::MOST_ALLOWED, most_allowed as u64);
        if let Some((_, memory)) = &figures.segment {
            memory.words()[word::MAGIC].store(MAGIC, Release);
        }
        figures
    }

    /// Says which queue the server receives from: another one, if the first was lost.
    pub fn name_queue(&self, queue: QueueId) {
        self.set(word::QUEUE, u64::try_from(queue.get()).unwrap_or(NO_QUEUE));
    }

    /// Counts a request that was received.
    pub fn received(&self) {
        self.add(word::REQUESTS, 1);
    }

    /// Counts one that was not given to a child.
    pub fn refused(&self, reason: Refused) {
        self.add(word::REFUSED + reason as usize, 1);
    }

    /// Says how many children answer requests, and how many died so far before they were done.
    pub fn children(&self, now: usize, died: u64) {
        self.set(word::CHILDREN, now as u64);
        if let Some((_, memory)) = &self.segment {
            memory.words()[word::MOST_CHILDREN].fetch_max(now as u64, Relaxed);
        }
        self.set(word::FAILURES + Failure::ChildDied as usize, died);
    }

    /// Counts bytes of files that were sent.
    pub fn sent(&self, bytes: u64) {
        self.add(word::BYTES, bytes);
    }

    /// Counts a transfer that came to its end.
    pub fn completed(&self, took: Duration) {
        let place = BOUNDS.partition_point(|bound| *bound < took);
        self.add(word::TIMES + place, 1);
        self.add(word::NANOSECONDS, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one that failed.
    pub fn failed(&self, reason: Failure) {
        self.add(word::FAILURES + reason as usize, 1);
    }

    /// Counts a client that left.
    pub fn client_gone(&self) {
        self.add(word::GONE, 1);
    }

    /// Takes the segment from under the key. Whoever has it attached counts on.
    pub fn withdraw(&self) {
        if let Some((segment, _)) = &self.segment
            && getpid() == self.maker
        {
            // Attached, so the id cannot be another's by now, also if somebody removed it before.
            let _ = segment.remove();
        }
    }

    // Relaxed: each word stands for itself.

    fn add(&self, index: usize, value: u64) {
        if let Some((_, memory)) = &self.segment {
            memory.words()[index].fetch_add(value, Relaxed);
        }
    }

    fn set(&self, index: usize, value: u64) {
        if let Some((_, memory)) = &self.segment {
            memory.words()[index].store(value, Relaxed);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.withdraw();
    }
}

fn attach(segment: SharedMemory) -> Result<(SharedMemory, Attached), Obstacle> {
    match segment.attach() {
        Ok(attached) => Ok((segment, attached)),
        Err(error) => {
            let _ = segment.remove();
            Err(error.into())
        }
    }
}

/// A marked segment of our own is a dead predecessor's, since we hold the server lock. Root removes
/// what other users left there or squat on. What nobody marked is another program's.
fn create_by_rules(key: Key) -> Result<SharedMemory, Obstacle> {
    const TRIES: usize = 100;
    let mut removed = 0;
    for _ in 0..TRIES {
        match SharedMemory::create(key, SIZE, MODE) {
            Ok(segment) => {
                if removed > 0 {
                    tracing::warn!(%key, removed, "removed foreign segments of shared memory");
                }
                return Ok(segment);
            }
            Err(error) if error.already_exists() => {
                removed += usize::from(remove_predecessor(key)?);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Obstacle::Contended)
}

/// Whether it was another user's.
fn remove_predecessor(key: Key) -> Result<bool, Obstacle> {
    let found = SharedMemory::open(key).and_then(|segment| Ok((segment, segment.status()?)));
    let (segment, status) = match found {
        Ok(found) => found,
        Err(error) if error.is_gone() => return Ok(false),
        Err(error) if error.is_denied() => return Err(Obstacle::Foreign(None)),
        Err(error) => return Err(error.into()),
    };
    let foreign =
        [status.permissions.uid, status.permissions.cuid].into_iter().find(|uid| *uid != geteuid());
    match foreign {
        Some(uid) if !geteuid().is_root() => return Err(Obstacle::Foreign(Some(uid))),
        None if status.permissions.mode != MODE => return Err(Obstacle::AnotherPrograms),
        _ => {}
    }
    match segment.remove() {
        Ok(()) => Ok(foreign.is_some()),
        Err(error) if error.is_gone() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
