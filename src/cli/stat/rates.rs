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
        let (before, now) = (before.counters.snapshot()?, now.counters.snapshot()?);
        let same = (before.server, before.started) == (now.server, now.started);
        (same && seconds > 0.0).then_some(Self { before, seconds })
    }

    /// The growth of one counter in a second.
    pub(super) fn of(&self, now: &Snapshot, counter: impl Fn(&Snapshot) -> u64) -> f64 {
        counter(now).saturating_sub(counter(self.before)) as f64 / self.seconds
    }
}
