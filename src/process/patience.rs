//! Trying before sleeping.
//!
//! A default queue holds two messages, so a sender and a receiver that block sleep on almost every
//! one. Two that first try for a while hardly ever do. Trying with a pause instruction starves
//! whoever is to make room; trying with `sched_yield`, and sleeping as soon as a yield shows that
//! somebody else needed the core, does not.

use std::thread;
use std::time::{Duration, Instant};

/// How long to try before leaving the wait to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    longest: Duration,
}

impl Patience {
    /// A yield and an attempt take well under a microsecond when nobody else wants the core.
    const SLOW_YIELD: Duration = Duration::from_micros(5);

    /// Tries for at most this long.
    pub const fn new(longest: Duration) -> Self {
        Self { longest }
    }

    /// Attempts again and again, giving way in between. None: it is time to sleep.
    pub fn attempt<T>(self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(done) = attempt() {
            return Some(done);
        }
        let start = Instant::now();
        let mut before = start;
        loop {
            thread::yield_now();
            if let Some(done) = attempt() {
                return Some(done);
            }
            let now = Instant::now();
            if now - before > Self::SLOW_YIELD || now - start > self.longest {
                return None;
            }
            before = now;
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new(Duration::from_micros(250))
    }
}
