//! System calls that std and nix do not make safe: forking, becoming another user, signals. The only
//! unsafe code of mqfs is here.

pub mod adaptive_spin;
pub mod child_exits;
pub mod credentials;
mod fork;
pub mod local_time;
pub mod nonblocking_write;
pub mod pidfd;
pub mod signals;
pub mod terminal;

use std::io;

use nix::errno::Errno;

pub use adaptive_spin::AdaptiveSpin;
pub use fork::{exit_now, fork_child, keep_heap_at_hand, share_one_arena};

/// The errno of a system call that std made; `EIO` for an error that std made up.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
