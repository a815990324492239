//! Standard streams that were closed when the program began.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each descriptor.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Whether this standard stream was closed when the program began. By now std has opened /dev/null
/// in its place, lest another file get its number. Output would vanish there without an error.
pub fn was_closed(descriptor: RawFd) -> bool {
    (0..3).contains(&descriptor) && CLOSED.load(Ordering::Relaxed) >> descriptor & 1 == 1
}

/// The C library calls what is in this section before main, and so before std.
#[cfg(feature = "programs")]
#[used]
// SAFETY: the section holds pointers to functions that take no arguments or ignore theirs.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_closed;

#[cfg(feature = "programs")]
extern "C" fn note_closed() {
    for descriptor in 0..3 {
        // SAFETY: only asks; fcntl(2).
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << descriptor, Ordering::Relaxed);
        }
    }
}
