//! Trying before sleeping.
//!
//! A default queue holds two messages, so a sender and a receiver that block sleep on almost every
//! one. Two that first try for a while hardly ever do. Trying with a pause instruction starves
//! whoever is to make room; `sched_yield` lets it have the core. But where others want the core too, a
//! yield gives away a whole time slice. So whoever finds that trying was a mistake leaves it for a
//! while: for longer, the more often it was one.

use std::thread;
use std::time::{Duration, Instant};

/// How long to try before leaving the wait to the kernel.
#[derive(Debug, Clone)]
pub struct AdaptiveSpin {
    longest: Duration,
    /// How many times not to try.
    left_out: u32,
    /// How many it was the last time.
    lesson: u32,
}

impl AdaptiveSpin {
    /// A yield and an attempt take well under a microsecond when nobody else wants the core.
    const SLOW_YIELD: Duration = Duration::from_micros(5);

    /// A time slice is lost for as many messages, or less than a tenth of what they take.
    const LONGEST_LESSON: u32 = 1 << 14;

    /// Tries for at most this long.
    pub const fn new(longest: Duration) -> Self {
        Self { longest, left_out: 0, lesson: 0 }
    }

    /// Attempts again and again, giving way in between. None: leave it to a call that waits, which does
    /// at once what can be done at once.
    pub fn attempt<T>(&mut self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        if self.left_out > 0 {
            self.left_out -= 1;
            return None; // without an attempt, which would be a call in vain as often as not
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
            if now - before > Self::SLOW_YIELD || now - start > self.longest {
                self.learn();
                return done;
            }
            if done.is_some() {
                self.lesson /= 2;
                return done;
            }
            before = now;
        }
    }

    fn learn(&mut self) {
        self.lesson = (self.lesson * 2).clamp(1, Self::LONGEST_LESSON);
        self.left_out = self.lesson;
    }
}

impl Default for AdaptiveSpin {
    /// For about as long as it takes to fall asleep and be woken.
    fn default() -> Self {
        Self::new(Duration::from_micros(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many waits begin with trying, if what they wait for never comes.
    fn tries(patience: &mut AdaptiveSpin, waits: u32) -> u32 {
        let mut attempts = 0;
        let waited = |_: &u32| {
            let before = attempts;
            assert_eq!(
                patience.attempt(|| -> Option<()> {
                    attempts += 1;
                    None
                }),
                None
            );
            attempts - before > 1
        };
        (0..waits).filter(waited).count() as u32
    }

    #[test]
    fn trying_in_vain_is_left_for_longer_and_longer() {
        let mut patience = AdaptiveSpin::new(Duration::from_micros(1));
        assert_eq!(tries(&mut patience, 1), 1);
        assert_eq!(tries(&mut patience, 1), 0);
        assert_eq!(tries(&mut patience, 1000), 9); // after 2, 4, 8, ... waits
    }

    #[test]
    fn what_is_there_is_taken_at_once() {
        let mut patience = AdaptiveSpin::default();
        for _ in 0..1000 {
            assert_eq!(patience.attempt(|| Some(7)), Some(7));
        }
    }
}
