//! Temporary names, which say who made them.

use nix::errno::Errno;

use crate::sys::getpid;

/// Calls `make` with temporary names until one is free, and returns that one.
pub(super) fn with_temporary_name<T>(
    mut make: impl FnMut(&str) -> Result<T, Errno>,
) -> Result<(T, String), Errno> {
    for n in 0..100 {
        let name = format!(".mqfs-{}-{n}.part", getpid());
        match make(&name) {
            Err(Errno::EEXIST) => {}
            outcome => return outcome.map(|made| (made, name)),
        }
    }
    Err(Errno::EEXIST)
}
