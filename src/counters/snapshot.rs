//! The reader's side of the counters.

use std::array;
use std::time::{Duration, SystemTime};

use sysv_ipc::{Error, Key, Pid, QueueId, SharedMemory, Uid};

use super::layout::{BOUNDS, MAGIC, NO_QUEUE, VERSION, word};
use super::reason::{FailureReason, RefusalReason};
use crate::ownership::server_state::untrusted_user;
use crate::sys::geteuid;

/// What [`read`] found under a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// There is no segment.
    Absent,
    /// The segment belongs to this user, whose counters are not trusted.
    NotTrusted(Uid),
    /// The segment holds no counters, or counters of a version that this build does not know.
    Unknown,
    /// The counters.
    Found(Box<Snapshot>),
}

/// The counters at one moment. They are read one after the other, so a later one may be slightly
/// newer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The server's request queue.
    pub queue: Option<QueueId>,
    /// The server, in its own pid namespace.
    pub server: Option<Pid>,
    /// When the server started.
    pub started: SystemTime,
    /// Most children allowed at once.
    pub children_limit: u64,
    /// Requests received.
    pub requests: u64,
    /// Children that serve requests now.
    pub children: u64,
    /// Most children that served requests at once.
    pub children_peak: u64,
    /// Children that wait for a file system that does not answer. It may be a second old.
    pub hung_children: u64,
    /// Children that serve sessions now.
    pub sessions: u64,
    /// Sessions that wait for a question. It may be a second old.
    pub idle_sessions: u64,
    /// Questions answered or failed: of sessions, and those of other requests.
    pub questions: u64,
    /// Bytes of files sent.
    pub bytes_sent: u64,
    /// Clients that left before they had everything.
    pub clients_gone: u64,
    /// Windows that could not be made: memory or segments were used up.
    pub windows_failed: u64,
    /// Complete answers by duration: one bucket for each of [`BOUNDS`], and one for longer ones.
    pub transfers: [u64; BOUNDS.len() + 1],
    /// How long all complete answers took together.
    pub transfer_time: Duration,
    failures: [u64; FailureReason::ALL.len()],
    refusals: [u64; RefusalReason::ALL.len()],
}

/// Takes a snapshot of the counters under a key. Counters of root and of `owner`, the owner of the
/// request queue under the key, are trusted; without a queue, those of root and of the caller.
///
/// # Errors
/// The segment cannot be opened or attached.
pub fn read(key: Key, owner: Option<Uid>) -> Result<Lookup, Error> {
    match read_segment(key, owner.unwrap_or(geteuid())) {
        Err(error) if error.is_gone() => Ok(Lookup::Absent),
        lookup => lookup,
    }
}

fn read_segment(key: Key, owner: Uid) -> Result<Lookup, Error> {
    let segment = SharedMemory::open(key)?;
    if let Some(uid) = untrusted_user(&segment.status()?.permissions, owner) {
        return Ok(Lookup::NotTrusted(uid));
    }
    let memory = segment.attach_read_only()?;
    let snapshot = Snapshot::of(|index| memory.load(index));
    Ok(snapshot.map_or(Lookup::Unknown, |snapshot| Lookup::Found(Box::new(snapshot))))
}

impl Snapshot {
    /// None: the words are no counters, or of a version that this build does not know.
    fn of(load: impl Fn(usize) -> Option<u64>) -> Option<Self> {
        if load(word::MAGIC)? != MAGIC || load(word::VERSION)? != VERSION {
            return None;
        }
        // The last word exists, and so do all before it.
        load(word::END - 1)?;
        let load = |index| load(index).unwrap_or(0);
        let small = |index| i32::try_from(load(index)).ok();
        let queue = if load(word::QUEUE) == NO_QUEUE { None } else { small(word::QUEUE) };
        let since = Duration::from_secs(load(word::STARTED));
        Some(Self {
            queue: queue.map(QueueId::new),
            server: small(word::SERVER).filter(|pid| *pid > 0).map(Pid::from_raw),
            started: SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH),
            children_limit: load(word::CHILDREN_LIMIT),
            requests: load(word::REQUESTS),
            children: load(word::CHILDREN),
            children_peak: load(word::CHILDREN_PEAK),
            hung_children: load(word::HUNG_CHILDREN),
            sessions: load(word::SESSIONS),
            idle_sessions: load(word::IDLE_SESSIONS),
            questions: load(word::QUESTIONS),
            bytes_sent: load(word::BYTES_SENT),
            clients_gone: load(word::CLIENTS_GONE),
            windows_failed: load(word::NO_WINDOW),
            transfers: array::from_fn(|bucket| load(word::TRANSFERS + bucket)),
            transfer_time: Duration::from_nanos(load(word::TRANSFER_NANOSECONDS)),
            failures: array::from_fn(|reason| load(word::FAILURES + reason)),
            refusals: array::from_fn(|reason| load(word::REFUSED + reason)),
        })
    }

    /// Failed questions by reason.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> {
        FailureReason::ALL.into_iter().zip(self.failures)
    }

    /// Refused requests by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.refusals)
    }

    /// All failed questions.
    pub fn all_failures(&self) -> u64 {
        sum(&self.failures)
    }

    /// All refused requests.
    pub fn all_refusals(&self) -> u64 {
        sum(&self.refusals)
    }

    /// All complete answers.
    pub fn completed(&self) -> u64 {
        sum(&self.transfers)
    }

    /// The smallest of [`BOUNDS`] that at least this part (0 to 1) of the complete answers did not
    /// exceed. None: there were none, or even the largest bound is too small.
    pub fn within(&self, part: f64) -> Option<Duration> {
        let wanted = (self.completed() as f64 * part).ceil().max(1.0) as u64;
        let mut so_far = 0_u64;
        BOUNDS.into_iter().zip(self.transfers).find_map(|(bound, count)| {
            so_far = so_far.wrapping_add(count);
            (so_far >= wanted).then_some(bound)
        })
    }
}

/// Wraps instead of panicking: a caller that took its child over can write any number.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
}

#[cfg(test)]
mod tests {
    use super::super::writer::Writer;
    use super::*;

    #[test]
    fn a_bound_is_included_in_its_bucket() {
        let key = Key::new(0x5d00_0000 | crate::sys::getpid().as_raw() & 0xff_ffff);
        let writer = Writer::create(key, QueueId::new(0), 64).unwrap();
        for took in [0, 100_000, 100_001, 1_000_000_000, 999_000_000_000] {
            writer.completed(Duration::from_nanos(took));
        }
        let Lookup::Found(seen) = read(key, None).unwrap() else { panic!("no counters") };
        assert_eq!(seen.queue, Some(QueueId::new(0)));
        assert_eq!(seen.completed(), 5);
        assert_eq!([0, 1, 12, 20].map(|bucket| seen.transfers[bucket]), [2, 1, 1, 1]);
        assert_eq!(seen.transfer_time, Duration::from_nanos(1_000_000_200_001));
        assert_eq!(seen.within(0.5), Some(Duration::from_micros(250)));
        assert_eq!((seen.within(0.8), seen.within(0.99)), (Some(Duration::from_secs(1)), None));
    }

    #[test]
    fn a_segment_may_hold_anything() {
        for value in [0, u64::MAX, 1 << 63] {
            let words = |count| {
                move |index| match index {
                    word::MAGIC => Some(MAGIC),
                    word::VERSION => Some(VERSION),
                    _ => (index < count).then_some(value),
                }
            };
            assert_eq!(Snapshot::of(words(word::END - 1)), None, "too small");
            let seen = Snapshot::of(words(word::END)).unwrap();
            let _ = (seen.completed(), seen.all_failures(), seen.within(0.5));
        }
        assert_eq!(Snapshot::of(|_| Some(0)), None, "no counters");
        assert_eq!(Snapshot::of(|_| None), None, "too small");
    }
}
