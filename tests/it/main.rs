//! What the world sees of the programs: bytes, exit status, queues left, signals.
//!
//! Every test runs in an IPC namespace of its own where it may make one (as root), under a key of its
//! own in any case, and at its end no queue, semaphore or process of its making may be left.

#![allow(unreachable_pub, missing_docs)]

use mqfs_kit as support;

mod bereaved;
mod callers;
mod child;
mod churn;
mod classic;
mod client;
mod confine;
mod dist;
mod files;
mod floods;
mod fuzz;
mod hostile;
mod limits;
mod listing;
mod liveness;
mod plain;
mod progress;
mod races;
mod ranges;
mod reaper;
mod reaper_crowds;
mod reaper_foreign;
mod reaper_keeps;
mod reaper_options;
mod reaper_watch;
mod resume;
mod rogue;
mod service;
mod squatters;
mod start;
mod stat;
mod stop;
mod survive;
mod tree;
mod trust;
mod wire;
