//! mqfs hands files to processes on the same machine over System V message queues: no port, no
//! socket file, no mount.
//!
//! A server owns one well-known *request queue* and forks a child for every request. A client makes a
//! private *reply queue*, names it in its request, reads the file from it and removes it. A reaper
//! removes the queues of processes that are provably dead. The plain form of the protocol is that
//! of *The Linux Programming Interface* (TLPI) section 46.8, so programs written against that book
//! work with mqfs unchanged, in both directions.
//!
//! # Fetching a file
//!
//! ```no_run
//! use std::io::Read;
//!
//! let client = mqfs::Client::connect(mqfs::DEFAULT_KEY)?;
//! let mut hosts = String::new();
//! client.open("/etc/hosts")?.read_to_string(&mut hosts)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`sysv`] | typed, safe System V message queues; knows nothing of mqfs |
//! | [`wire`] | bytes ⇄ requests, replies and leases |
//! | `process` | forking, credentials, signals, and who is alive |
//! | [`client`], [`server`], [`reaper`] | the three programs, as a library |
//! | `cli` | their arguments, wording and exit codes (feature `cli`) |

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "mqfs is for 64-bit Linux: it stands on that kernel's message queues (MSG_COPY, MSG_STAT_ANY)"
);

#[cfg(feature = "cli")]
#[doc(hidden)] // for the programs: no part of the library's promise
pub mod cli;
pub mod client;
#[allow(unsafe_code)]
#[doc(hidden)] // for the programs and the tests: no part of the library's promise
pub mod process;
pub mod reaper;
pub mod server;
#[allow(unsafe_code)]
pub mod sysv;
pub mod text;
pub mod wire;

/// The crate whose types for errnos, uids and pids stand in this one's signatures.
pub use nix;

pub use client::{Client, Error, Transfer};
pub use wire::DEFAULT_KEY;
