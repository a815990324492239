//! Local time, from the C library.

use std::mem::MaybeUninit;

/// The local time of a moment in seconds since 1970. None: its year does not fit into an integer.
///
/// Source: localtime_r(3).
pub fn local_time(time: i64) -> Option<libc::tm> {
    let mut tm = MaybeUninit::zeroed();
    // SAFETY: time and tm outlive the call, which reads one and fills in the other; localtime_r(3).
    let filled = unsafe { libc::localtime_r(&raw const time, tm.as_mut_ptr()) };
    // SAFETY: if the call succeeded, it filled in tm.
    (!filled.is_null()).then(|| unsafe { tm.assume_init() })
}
