//! How fast the counters of a server grow.

use std::array;
use std::time::Duration;

use crate::counters::Snapshot;

/// The growth in a second of each [`growing`] counter.
pub(super) type Rates = [(&'static str, f64); 8];

/// None: the counters are of two servers, or no time has passed between them.
pub(super) fn rates(before: &Snapshot, now: &Snapshot, passed: Duration) -> Option<Rates> {
    let seconds = passed.as_secs_f64();
    let same = (before.server, before.started) == (now.server, now.started);
    let (before, now) = (growing(before), growing(now));
    let rate = |index: usize| {
        let (name, count) = now[index];
        (name, count.saturating_sub(before[index].1) as f64 / seconds)
    };
    (same && seconds > 0.0).then(|| array::from_fn(rate))
}

/// The counters that only grow, with their names in JSON.
pub(super) fn growing(counters: &Snapshot) -> [(&'static str, u64); 8] {
    [
        ("requests", counters.requests),
        ("questions", counters.questions),
        ("complete", counters.completed()),
        ("bytes_sent", counters.bytes_sent),
        ("clients_gone", counters.clients_gone),
        ("windows_failed", counters.windows_failed),
        ("failed", counters.all_failures()),
        ("refused", counters.all_refusals()),
    ]
}
