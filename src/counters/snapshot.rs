//! The reader's side.

use std::time::{Duration, SystemTime};

use crate::sys::geteuid;
use sysv_ipc::{Pid, Uid};

use super::layout::{BOUNDS, MAGIC, NO_QUEUE, VERSION, word};
use super::reason::{FailureReason, RefusalReason};
use sysv_ipc::{AttachedReadOnly, Error, Key, QueueId, SharedMemory, SharedMemoryStatus};

/// What stands under a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// No segment.
    Absent,
    /// A segment of a user whose figures are not to be trusted.
    NotTrusted(Uid),
    /// A segment that holds no figures, or of a version that this build does not know.
    Unknown,
    /// Figures.
    Found(Box<Snapshot>),
}

/// The figures as they were, word by word: each is right, and the next may be a moment younger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The request queue that they belong to.
    pub queue: Option<QueueId>,
    /// The server, in its own pid namespace.
    pub server: Option<Pid>,
    /// When it started.
    pub started: SystemTime,
    /// The most children that there may be.
    pub most_allowed: u64,
    /// Requests received.
    pub requests: u64,
    /// Children that answer requests.
    pub children: u64,
    /// The most of them that there were at once.
    pub most_children: u64,
    /// Bytes of files sent.
    pub bytes: u64,
    /// Clients that left before they had everything.
    pub clients_gone: u64,
    /// Complete transfers by how long they took: see [`BOUNDS`].
    pub times: [u64; BOUNDS.len() + 1],
    /// How long they took together.
    pub time: Duration,
    failures: [u64; FailureReason::ALL.len()],
    refused: [u64; RefusalReason::ALL.len()],
}

/// Reads the figures under a key, whose request queue belongs to `owner`. Those of another user who
/// is not root are not trusted; without a queue, those of the caller and root are.
///
/// # Errors
/// The segment cannot be read.
pub fn read(key: Key, owner: Option<Uid>) -> Result<Lookup, Error> {
    let ask = || {
        let segment = SharedMemory::open(key)?;
        Ok((segment, segment.status()?))
    };
    let (segment, status) = match ask() {
        Err(error) if Error::is_gone(&error) => return Ok(Lookup::Absent),
        found => found?,
    };
    if let Some(uid) = stranger(&status, owner.unwrap_or(geteuid())) {
        return Ok(Lookup::NotTrusted(uid));
    }
    match segment.attach_read_only() {
        Ok(memory) => Ok(Lookup::of(&memory)),
        Err(error) if error.is_gone() => Ok(Lookup::Absent),
        Err(error) => Err(error),
    }
}

fn stranger(status: &SharedMemoryStatus, owner: Uid) -> Option<Uid> {
    [status.permissions.uid, status.permissions.cuid]
        .into_iter()
        .find(|&uid| !uid.is_root() && uid != owner)
}

impl Lookup {
    fn of(memory: &AttachedReadOnly) -> Self {
        Snapshot::of(|index| memory.load(index))
            .map_or(Self::Unknown, |snapshot| Self::Found(Box::new(snapshot)))
    }
}

impl Snapshot {
    /// None: these words are no figures that this build knows.
    pub(super) fn of(load: impl Fn(usize) -> Option<u64>) -> Option<Self> {
        if load(word::MAGIC)? != MAGIC || load(word::VERSION)? != VERSION {
            return None;
        }
        load(word::END - 1)?;
        // There is every word up to there.
        let load = |index| load(index).unwrap_or(0);
        let small = |index| i32::try_from(load(index)).ok();
        let queue = if load(word::QUEUE) == NO_QUEUE { None } else { small(word::QUEUE) };
        let since = Duration::from_secs(load(word::STARTED));
        Some(Self {
            queue: queue.map(QueueId::new),
            server: small(word::SERVER).filter(|pid| *pid > 0).map(Pid::from_raw),
            started: SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH),
            most_allowed: load(word::MOST_ALLOWED),
            requests: load(word::REQUESTS),
            children: load(word::CHILDREN),
            most_children: load(word::MOST_CHILDREN),
            bytes: load(word::BYTES),
            clients_gone: load(word::GONE),
            times: std::array::from_fn(|place| load(word::TIMES + place)),
            time: Duration::from_nanos(load(word::NANOSECONDS)),
            failures: std::array::from_fn(|place| load(word::FAILURES + place)),
            refused: std::array::from_fn(|place| load(word::REFUSED + place)),
        })
    }

    /// How many requests failed, by reason.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> {
        FailureReason::ALL.into_iter().zip(self.failures)
    }

    /// How many were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.refused)
    }

    /// How many failed.
    pub fn all_failures(&self) -> u64 {
        sum(&self.failures)
    }

    /// How many were refused.
    pub fn all_refused(&self) -> u64 {
        sum(&self.refused)
    }

    /// How many transfers came to their end.
    pub fn completed(&self) -> u64 {
        sum(&self.times)
    }

    /// The bound that at least this part of the complete transfers stayed within, from 0 to 1. None:
    /// there were none, or it lies beyond the last bound.
    pub fn within(&self, part: f64) -> Option<Duration> {
        let wanted = (self.completed() as f64 * part).ceil().max(1.0) as u64;
        let mut so_far = 0_u64;
        BOUNDS.into_iter().zip(self.times).find_map(|(bound, count)| {
            so_far = so_far.wrapping_add(count);
            (so_far >= wanted).then_some(bound)
        })
    }
}

/// Anything may stand in the segment of a server that was taken over: no sum is a reason to panic.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
}

#[cfg(test)]
mod tests {
    use super::super::writer::Writer;
    use super::*;

    fn own_key(number: i32) -> Key {
        let process = crate::sys::getpid().as_raw() & 0xf_ffff;
        Key::new(0x5d00_0000 | process << 4 | number)
    }

    fn figures(key: Key) -> Snapshot {
        match read(key, Some(geteuid())).unwrap() {
            Lookup::Found(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_counted_is_what_is_read() {
        let key = own_key(1);
        let counting = Writer::create(key, QueueId::new(0), 64).unwrap();
        assert_eq!(figures(key).queue, Some(QueueId::new(0)));
        counting.name_queue(QueueId::new(7));
        counting.received();
        counting.refused(RefusalReason::ForkFailed);
        counting.failed(FailureReason::NotFound);
        counting.set_children(3, 1);
        counting.set_children(2, 1);
        counting.sent(4096);
        counting.client_gone();
        for took in [0, 100_000, 100_001, 1_000_000_000, 999_000_000_000] {
            counting.completed(Duration::from_nanos(took));
        }
        let seen = figures(key);
        assert_eq!((seen.queue, seen.server), (Some(QueueId::new(7)), Some(crate::sys::getpid())));
        assert_eq!((seen.requests, seen.bytes, seen.clients_gone), (1, 4096, 1));
        assert_eq!((seen.children, seen.most_children, seen.most_allowed), (2, 3, 64));
        assert_eq!((seen.all_refused(), seen.all_failures()), (1, 2));
        assert_eq!(seen.refused().last(), Some((RefusalReason::ForkFailed, 1)));
        assert_eq!(seen.completed(), 5);
        assert_eq!((seen.times[0], seen.times[1], seen.times[12], seen.times[20]), (2, 1, 1, 1));
        assert_eq!(seen.time, Duration::from_nanos(1_000_000_200_001));
        assert_eq!(seen.within(0.5), Some(Duration::from_micros(250)));
        assert_eq!((seen.within(0.8), seen.within(0.99)), (Some(Duration::from_secs(1)), None));
        drop(counting);
        assert!(matches!(read(key, None), Ok(Lookup::Absent)));
    }

    #[test]
    fn anything_may_stand_in_a_segment_of_somebody_elses() {
        let key = own_key(2);
        for size in [8, 64, word::END * 8 - 1, 4096] {
            let segment = SharedMemory::create(key, size, sysv_ipc::Mode::new(0o600)).unwrap();
            let memory = segment.attach().unwrap();
            let reading = |value: u64| {
                for (index, word) in memory.words().iter().enumerate() {
                    let value = [MAGIC, VERSION].get(index).copied().unwrap_or(value);
                    word.store(value, std::sync::atomic::Ordering::Relaxed);
                }
                read(key, None)
            };
            let outcomes = [reading(0), reading(u64::MAX), reading(1 << 63)];
            memory.words()[0].store(0, std::sync::atomic::Ordering::Relaxed);
            let unmarked = read(key, None);
            segment.remove().unwrap();
            assert!(matches!(unmarked, Ok(Lookup::Unknown)));
            for outcome in outcomes {
                match outcome {
                    Ok(Lookup::Found(seen)) if size == 4096 => {
                        let _ = (seen.completed(), seen.all_failures(), seen.within(0.5));
                    }
                    Ok(Lookup::Unknown) if size < 4096 => {}
                    other => panic!("{size}: {other:?}"),
                }
            }
        }
    }
}
