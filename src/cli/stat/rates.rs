//! How fast the counters went up between two looks.

use super::look::Look;
use crate::counters::Snapshot;

/// A second look at the same server's figures.
#[derive(Clone, Copy)]
pub(super) struct Since<'a> {
    before: &'a Snapshot,
    seconds: f64,
}

impl<'a> Since<'a> {
    /// None: there is nothing to compare, or it is another server's.
    pub(super) fn of(before: &'a Look, now: &Look) -> Option<Self> {
        let seconds = now.taken.duration_since(before.taken).as_secs_f64();
        let (then, figures) = (before.figures.snapshot()?, now.figures.snapshot()?);
        let same = (then.server, then.started) == (figures.server, figures.started);
        (same && seconds > 0.0).then_some(Self { before: then, seconds })
    }

    /// What came a second, of what this counts.
    pub(super) fn rate(&self, now: &Snapshot, count: impl Fn(&Snapshot) -> u64) -> f64 {
        count(now).saturating_sub(count(self.before)) as f64 / self.seconds
    }
}
