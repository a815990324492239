//! The reader's side of the counters.

use std::array;
use std::time::{Duration, SystemTime};

use sysv_ipc::{Error, Key, Pid, QueueId, SharedMemory, Uid};

use super::layout::{BOUNDS, MAGIC, NO_QUEUE, VERSION, with_numbers, word};
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

macro_rules! snapshot {
    ($($word:ident = $index:literal, $field:ident, $metric:literal, $help:literal;)+) => {
        /// The counters at one moment. They are read one after the other, so a later one may be
        /// slightly newer.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            /// The server's request queue.
            pub queue: Option<QueueId>,
            /// The server, in its own pid namespace.
            pub server: Option<Pid>,
            /// When the server started.
            pub started: SystemTime,
            $(#[doc = concat!($help, " Word ", $index, ".")] pub $field: u64,)+
            /// Complete answers by duration: a bucket for each of [`BOUNDS`], and one above them.
            pub transfers: [u64; BOUNDS.len() + 1],
            /// How long all complete answers took together.
            pub transfer_time: Duration,
            failures: [u64; FailureReason::ALL.len()],
            refusals: [u64; RefusalReason::ALL.len()],
        }

        impl Snapshot {
            fn of(load: impl Fn(usize) -> u64) -> Self {
                let small = |index| i32::try_from(load(index)).ok();
                let queue = if load(word::QUEUE) == NO_QUEUE { None } else { small(word::QUEUE) };
                let since = Duration::from_secs(load(word::STARTED));
                let started = SystemTime::UNIX_EPOCH.checked_add(since);
                Self {
                    queue: queue.map(QueueId::new),
                    server: small(word::SERVER).filter(|pid| *pid > 0).map(Pid::from_raw),
                    started: started.unwrap_or(SystemTime::UNIX_EPOCH),
                    $($field: load(word::$word),)+
                    transfers: array::from_fn(|bucket| load(word::TRANSFERS + bucket)),
                    transfer_time: Duration::from_nanos(load(word::TRANSFER_NANOSECONDS)),
                    failures: array::from_fn(|reason| load(word::FAILURES + reason)),
                    refusals: array::from_fn(|reason| load(word::REFUSED + reason)),
                }
            }

            /// The counters that are one number.
            #[cfg(feature = "programs")]
            pub(crate) fn numbers(&self) -> impl Iterator<Item = Number> {
                [$(Number {
                    name: stringify!($field),
                    metric: $metric,
                    help: $help,
                    value: self.$field,
                },)+].into_iter()
            }
        }
    };
}
with_numbers!(snapshot);

/// A counter that is one number, with its names in JSON and in Prometheus.
#[cfg(feature = "programs")]
pub(crate) struct Number {
    pub(crate) name: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) help: &'static str,
    pub(crate) value: u64,
}

/// Takes a snapshot of the counters under a key. Counters of root and of `owner`, the owner of the
/// request queue under the key, are trusted; without a queue, those of root and of the caller.
/// Fails if the segment cannot be opened or attached.
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
    let load = |index| memory.load(index).unwrap_or(0);
    let is_whole = memory.load(word::END - 1).is_some();
    if !is_whole || (load(word::MAGIC), load(word::VERSION)) != (MAGIC, VERSION) {
        return Ok(Lookup::Unknown);
    }
    Ok(Lookup::Found(Box::new(Snapshot::of(load))))
}

impl Snapshot {
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

    /// How many answers took at most each of [`BOUNDS`], and last all of them: Prometheus' `le`.
    pub fn cumulative_transfers(&self) -> impl Iterator<Item = u64> {
        self.transfers.into_iter().scan(0_u64, |so_far, count| {
            *so_far = so_far.wrapping_add(count);
            Some(*so_far)
        })
    }

    /// The smallest of [`BOUNDS`] that at least this part (0 to 1) of the complete answers did not
    /// exceed. None: there were none, or even the largest bound is too small.
    pub fn within(&self, part: f64) -> Option<Duration> {
        let wanted = (self.completed() as f64 * part).ceil().max(1.0) as u64;
        let mut buckets = BOUNDS.into_iter().zip(self.cumulative_transfers());
        buckets.find(|(_, count)| *count >= wanted).map(|(bound, _)| bound)
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
        let writer = Writer::default();
        writer.publish(key, QueueId::new(0), 64).unwrap();
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
    fn yields_are_skipped_as_often_as_told_and_always_without_counters() {
        let (writer, key) =
            (Writer::default(), 0x5e00_0000 | crate::sys::getpid().as_raw() & 0xff_ffff);
        assert!(writer.skip_yield());
        writer.publish(Key::new(key), QueueId::new(0), 64).unwrap();
        writer.skip_yields(2);
        assert_eq!([(); 4].map(|()| writer.skip_yield()), [true, true, false, false]);
    }
}
