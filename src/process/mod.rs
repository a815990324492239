//! Processes: forking them, becoming another user, signals, and who is alive.
//!
//! [`liveness`] is the one place that decides whether the owner of a queue is dead; the server,
//! the client and the reaper all ask it. *Dead* takes proof; doubt means alive.

pub mod children;
pub mod clock;
pub mod credentials;
mod fork;
pub mod groups;
mod identity;
pub mod introspection;
pub mod lease;
pub mod liveness;
pub mod nowait;
mod patience;
pub mod pidfd;
mod proc;
pub mod server_lock;
pub mod signals;
pub mod terminal;

use std::io;

use nix::errno::Errno;

pub use fork::{exit_now, fork_child, keep_heap_at_hand, share_one_arena};
pub use patience::Patience;

/// The errno of a system call that std made; `EIO` for an error that std made up.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
