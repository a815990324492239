//! Local time, as the C library knows it.

use std::mem::MaybeUninit;

/// How far local time is ahead of UTC at a moment, in seconds; 0 if nobody knows.
///
/// `localtime_r(time, tm)`, of which tm_gmtoff.
pub fn local_offset(time: i64) -> i64 {
    let mut tm = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: reads a time, and fills in a tm, both of which outlive the call; localtime_r(3).
    let filled = unsafe { libc::localtime_r(&raw const time, tm.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: it was filled in.
    unsafe { tm.assume_init() }.tm_gmtoff
}
