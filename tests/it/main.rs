//! What users see of the programs: bytes, exit status, queues left, signals.
//!
//! As root, every test runs in an IPC namespace of its own; otherwise under a key of its own. It
//! must leave no queue, semaphore or process.

#![allow(unreachable_pub, missing_docs)]

mod caller_groups;
mod child_confinement;
mod classic;
mod client;
mod copies;
mod dist;
mod endings;
mod files;
mod forged_requests;
mod fuzz;
mod hostile_environment;
mod hung;
mod listing;
mod liveness;
mod per_user_limits;
mod plain;
mod progress;
mod reaper;
mod reaper_keeps;
mod recovery;
mod root_confinement;
mod sandboxes;
mod server_start;
mod sessions;
mod shutdown;
mod stat;
mod support;
mod tree;
mod user_namespaces;
mod windows;
mod wire;
