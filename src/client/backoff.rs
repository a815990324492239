//! Pauses between tries: each longer than the last, and random, so that clients do not move in
//! step.

use std::time::{Duration, Instant};

/// How long to wait before each next try, and when to give up.
#[derive(Debug)]
pub(super) struct Backoff {
    start: Instant,
    timeout: Duration,
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    /// For a server that is busy or absent.
    pub(super) fn for_server(timeout: Duration) -> Self {
        Self::new(Duration::from_millis(10), Duration::from_secs(1), timeout)
    }

    /// For room in a queue that a server is reading.
    pub(super) fn for_room(timeout: Duration) -> Self {
        Self::new(Duration::from_micros(50), Duration::from_millis(5), timeout)
    }

    /// Pauses until `timeout` from now.
    fn new(first: Duration, longest: Duration, timeout: Duration) -> Self {
        Self { start: Instant::now(), timeout, pause: first, longest }
    }

    /// The next pause, between half and all of the current step; None once the timeout has passed.
    pub(super) fn next(&mut self) -> Option<Duration> {
        let left = self.timeout.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            return None;
        }
        let step = self.pause;
        self.pause = (step * 2).min(self.longest);
        // Without a random number clients may move in step, which only slows them down.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let jitter = f64::from(random) / f64::from(u32::MAX);
        Some((step / 2 + (step / 2).mul_f64(jitter)).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_second_and_differ() {
        let pauses = || {
            let mut backoff = Backoff::for_server(Duration::from_secs(3600));
            (0..12).map(|_| backoff.next().unwrap()).collect::<Vec<_>>()
        };
        let (one, other) = (pauses(), pauses());
        for pauses in [&one, &other] {
            assert!(pauses[0] <= Duration::from_millis(10));
            assert!(pauses[11] >= Duration::from_millis(500));
            assert!(pauses.iter().all(|&pause| pause <= Duration::from_secs(1)));
        }
        assert_ne!(one, other);
    }

    #[test]
    fn there_is_no_pause_behind_the_end_and_any_time_has_one() {
        assert_eq!(Backoff::for_server(Duration::ZERO).next(), None);
        assert!(Backoff::for_server(Duration::MAX).next().is_some());
    }
}
