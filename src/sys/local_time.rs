//! Local time, from the C library.

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// The local time of a moment in seconds since 1970, in a form of strftime(3) and in English. None:
/// its year does not fit into an integer, or the text is longer than 63 bytes.
pub fn local_time(time: i64, form: &CStr) -> Option<String> {
    let mut tm = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: time and tm outlive the call, which reads one and fills in the other; localtime_r(3).
    let filled = unsafe { libc::localtime_r(&raw const time, tm.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: zeros are valid, too.
    unsafe { tm.assume_init() }.tm_year.checked_add(1900)?; // strftime(3) does not check
    let mut text = [0_u8; 64];
    let (start, size) = (text.as_mut_ptr().cast(), text.len());
    // SAFETY: writes at most size bytes to text; form ends with NUL, tm is filled in; strftime(3).
    let length = unsafe { libc::strftime(start, size, form.as_ptr(), tm.as_ptr()) };
    (length > 0).then(|| String::from_utf8_lossy(&text[..length]).into_owned())
}
