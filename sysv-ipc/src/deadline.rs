//! Waiting until a deadline for what the kernel can only wait for without one.

use std::thread;
use std::time::{Duration, Instant};

/// So long the thread tries again at once, after letting others run.
const YIELDING: Duration = Duration::from_micros(50);

/// The longest pause between two tries, and so the most that is added to a long wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// Tries until it succeeds or the deadline has passed, but at least once. None: too late.
///
/// A pause is an eighth of the time waited so far, so that what comes soon is found soon, and who
/// waits for long tries only 200 times a second.
pub(crate) fn try_until<T>(deadline: Instant, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(outcome) = attempt() {
            return Some(outcome);
        }
        let now = Instant::now();
        if now >= deadline {
            return None;
        }
        let waited = now - start;
        if waited < YIELDING {
            thread::yield_now();
        } else {
            thread::sleep((waited / 8).min(LONGEST_PAUSE).min(deadline - now));
        }
    }
}
