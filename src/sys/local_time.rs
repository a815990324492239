//! Local time, from the C library.

use std::mem::MaybeUninit;

/// A local time, in the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// The year.
    pub year: i64,
    /// The month: 0 to 11.
    pub month: usize,
    /// The day of the month, from 1.
    pub day: i32,
    /// The hour: 0 to 23.
    pub hour: i32,
    /// The minute: 0 to 59.
    pub minute: i32,
    /// The second: 0 to 60.
    pub second: i32,
    /// How far the clock is ahead of UTC, in seconds.
    pub offset: i64,
}

impl Local {
    /// The local time of a moment in seconds since 1970. None: its year does not fit into an
    /// integer.
    ///
    /// Source: localtime_r(3).
    pub fn at(time: i64) -> Option<Self> {
        let mut tm = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: time and tm outlive the call, which reads one and fills in the other;
        // localtime_r(3).
        let filled = unsafe { libc::localtime_r(&raw const time, tm.as_mut_ptr()) };
        if filled.is_null() {
            return None;
        }
        // SAFETY: the call succeeded, so it filled in tm.
        let tm = unsafe { tm.assume_init() };
        Some(Self {
            year: i64::from(tm.tm_year) + 1900,
            month: usize::try_from(tm.tm_mon).ok()?,
            day: tm.tm_mday,
            hour: tm.tm_hour,
            minute: tm.tm_min,
            second: tm.tm_sec,
            offset: tm.tm_gmtoff,
        })
    }
}
