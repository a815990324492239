//! Writing without waiting for a reader.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

/// Whether this process could not [write] because of a limit on file sizes: `RLIMIT_FSIZE`.
pub static IS_LIMITED: AtomicBool = AtomicBool::new(false);

/// Writes what a descriptor takes without blocking.
///
/// Other processes may share the descriptor, so this cannot set `O_NONBLOCK`, which would affect
/// them too. Pipes and sockets take `RWF_NOWAIT`, pwritev2(2), pipes from Linux 6.4 on. Terminals
/// and older pipes are polled first, although another process may fill them before the write. Files
/// never block for a reader. `EAGAIN`: the descriptor has no room.
pub fn write(descriptor: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let descriptor = descriptor.as_fd();
    let kind = SFlag::from_bits_truncate(fstat(descriptor)?.st_mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFCHR {
        return write_if_ready(descriptor, bytes);
    }
    if kind != SFlag::S_IFIFO && kind != SFlag::S_IFSOCK {
        let written = nix::unistd::write(descriptor, bytes);
        IS_LIMITED.fetch_or(written == Err(Errno::EFBIG), Ordering::Relaxed);
        return written;
    }
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the one part is bytes that outlive the call and are only read; pwritev2(2).
    let written =
        unsafe { libc::pwritev2(descriptor.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(written) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => write_if_ready(descriptor, bytes),
        outcome => outcome.map(isize::cast_unsigned),
    }
}

fn write_if_ready(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut room = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    if poll(&mut room, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    nix::unistd::write(descriptor, bytes)
}
