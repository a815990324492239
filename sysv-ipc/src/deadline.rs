//! Waiting until a deadline for what the kernel can only wait for without one.

use std::thread;
use std::time::{Duration, Instant};

/// For this long the thread yields between two tries. Then it sleeps.
const YIELDING: Duration = Duration::from_micros(50);

/// The longest sleep between two tries, and so the most that is added to a long wait.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);

/// Tries until an attempt has an outcome or the deadline has passed, but at least once. None: the
/// deadline has passed.
///
/// Each sleep is an eighth of the time waited so far. So a short wait is hardly lengthened, and a
/// long one tries only 200 times a second.
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
            thread::sleep((waited / 8).min(LONGEST_SLEEP).min(deadline - now));
        }
    }
}
