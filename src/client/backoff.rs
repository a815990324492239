//! Pauses between tries, longer each time, and random: clients should not all try at once.

use std::iter;
use std::time::{Duration, Instant};

/// Pauses for a server that is busy or absent, until `timeout` from now.
pub(super) fn for_server(timeout: Duration) -> impl Iterator<Item = Duration> {
    pauses(Duration::from_millis(10), Duration::from_secs(1), timeout)
}

/// Pauses for room in a queue that a server is reading, until `timeout` from now.
pub(super) fn for_room(timeout: Duration) -> impl Iterator<Item = Duration> {
    pauses(Duration::from_micros(50), Duration::from_millis(5), timeout)
}

/// Each pause lasts between half and all of a step.
fn pauses(first: Duration, longest: Duration, timeout: Duration) -> impl Iterator<Item = Duration> {
    let start = Instant::now();
    let steps = iter::successors(Some(first), move |&step| Some((step * 2).min(longest)));
    steps.map_while(move |step| {
        let left = timeout.saturating_sub(start.elapsed());
        // Without random numbers, clients may try at the same time, which only slows them down.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let jitter = f64::from(random) / f64::from(u32::MAX);
        (!left.is_zero()).then(|| (step / 2 + (step / 2).mul_f64(jitter)).min(left))
    })
}
