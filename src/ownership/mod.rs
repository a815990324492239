//! Who owns a queue, and whether that process is alive. Only proof counts as dead.
//!
//! The server, the client and the reaper all ask [`liveness`], and no other code decides it.

mod census;
pub mod lease;
pub mod liveness;
pub(crate) mod procfs;
mod queue_waiters;
pub mod server_state;
