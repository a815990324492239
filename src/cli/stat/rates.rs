//! How fast the counters of a server grow.

use super::state::KeyState;
use crate::counters::Snapshot;

/// The growth since an earlier snapshot of the same server.
#[derive(Clone, Copy)]
pub(super) struct Rates<'a> {
    before: &'a Snapshot,
    seconds: f64,
}

impl<'a> Rates<'a> {
    /// None: one of them has no counters, they are of two servers, or the clock was set back.
    pub(super) fn between(before: &'a KeyState, now: &KeyState) -> Option<Self> {
        let seconds = now.time.duration_since(before.time).ok()?.as_secs_f64();
        let (before, now) = (before.counters.as_deref()?, now.counters.as_deref()?);
        let same = (before.server, before.started) == (now.server, now.started);
        (same && seconds > 0.0).then_some(Self { before, seconds })
    }

    /// The growth in a second of each [`growing`] counter.
    pub(super) fn of(&self, now: &Snapshot) -> Vec<f64> {
        let counts = growing(now).into_iter().zip(growing(self.before));
        let growth = counts.map(|((_, now), (_, before))| now.saturating_sub(before));
        growth.map(|growth| growth as f64 / self.seconds).collect()
    }
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
