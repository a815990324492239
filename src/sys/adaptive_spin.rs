//! Trying for a short time before sleeping.
//!
//! A queue of default size holds two messages, so a sender and a receiver that block sleep for
//! almost every message. Between tries they yield, which lets the other side run. But if other
//! processes want the core, a yield gives away a whole time slice. So after a failure they skip the
//! next tries, and more of them after each further failure.

use std::thread;
use std::time::{Duration, Instant};

/// Decides how long to try before the kernel should wait.
#[derive(Debug, Clone, Default)]
pub struct AdaptiveSpin {
    /// How many attempts to skip from now on.
    left_to_skip: u32,
    /// How many were skipped after the last failure.
    skipped: u32,
}

impl AdaptiveSpin {
    /// Falling asleep and being woken takes about as long.
    const LONGEST: Duration = Duration::from_micros(50);

    /// A yield takes well under a microsecond if no other process wants the core.
    const SLOW_YIELD: Duration = Duration::from_micros(5);

    /// One time slice for this many messages costs less than a tenth of the time that they take.
    const MOST_SKIPPED: u32 = 1 << 14;

    /// Attempts again and again, and yields in between. None: use a call that waits. It may return
    /// None without an attempt.
    pub fn attempt<T>(&mut self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        if self.left_to_skip > 0 {
            self.left_to_skip -= 1;
            return None; // an attempt would fail as often as not
        }
        if let Some(done) = attempt() {
            return Some(done);
        }
        let start = Instant::now();
        let mut before = start;
        loop {
            thread::yield_now();
            let done = attempt();
            let now = Instant::now();
            if now - before > Self::SLOW_YIELD || now - start > Self::LONGEST {
                self.skipped = (self.skipped * 2).clamp(1, Self::MOST_SKIPPED);
                self.left_to_skip = self.skipped;
                return done;
            }
            if done.is_some() {
                self.skipped /= 2;
                return done;
            }
            before = now;
        }
    }
}
