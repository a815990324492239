//! Who owns a queue, and whether that process is alive. *Dead* takes proof; doubt means alive.
//!
//! The server, the client and the reaper all ask [`liveness`], and no other code decides it.

#[allow(unsafe_code)]
mod identity;
pub mod lease;
pub mod liveness;
pub(crate) mod procfs;
pub mod server_lock;
