//! Points in time that a new child can ask for cheaply.

use std::time::Duration;

/// A time of `CLOCK_MONOTONIC`, clock_gettime(2), in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        // SAFETY: fills the structure in.
        Self::read(|time| unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time) }.into())
    }

    /// As [`now`](Self::now), but slower, without the code of the vDSO and of libc that asks it:
    /// these are two page faults in a new child.
    pub fn now_by_syscall() -> Self {
        let clock = libc::c_long::from(libc::CLOCK_MONOTONIC);
        // SAFETY: fills the structure in.
        Self::read(|time| unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) })
    }

    fn read(ask: impl FnOnce(*mut libc::timespec) -> libc::c_long) -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        ask(&raw mut time);
        Self(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    }

    /// Zero if it is earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
