//! What the world sees of the programs: bytes, exit status, queues left, signals.
//!
//! Every test runs in an IPC namespace of its own where it may make one (as root), under a key of its
//! own in any case, and at its end no queue, semaphore or process of its making may be left.

#![allow(unreachable_pub, missing_docs)]

use mqfs_kit as support;

mod caller_identity;
mod changing_queues;
mod child_confinement;
mod child_death;
mod classic;
mod client;
mod dist;
mod files;
mod floods;
mod forged_requests;
mod fuzz;
mod hostile_environment;
mod key_squatters;
mod listing;
mod liveness;
mod malicious_server;
mod per_user_limits;
mod plain;
mod progress;
mod ranges;
mod reaper;
mod reaper_concurrency;
mod reaper_foreign;
mod reaper_keeps;
mod reaper_options;
mod reaper_watch;
mod recovery;
mod resume;
mod root_confinement;
mod server_start;
mod service;
mod shutdown;
mod stat;
mod swapped_paths;
mod tree;
mod wire;
