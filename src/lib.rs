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
//! A [`Transfer`] reads like a file. Its end is the end of the file: count and checksum were right.
//! Anything else is an error, never a short file.
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
//! A [`Client`] may be shared between threads, each with transfers of its own; each takes a queue for
//! as long as it lasts. [`open_range`](Client::open_range) brings a part of a file.
//!
//! # Options
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let client = mqfs::Client::builder()
//!     .key(sysv_ipc::Key::new(0x4d51_0001)) // another server than the usual
//!     .timeout(Duration::from_secs(5)) // for anything to come
//!     .retries(10) // when servers die on the way
//!     .connect()?;
//! # Ok::<(), mqfs::Error>(())
//! ```
//!
//! Any user can make a queue under any key. So a client trusts servers of root's and of its own user,
//! and of one other that it is [told](client::Builder::server_uid); others are told nothing, not even
//! a path.
//!
//! # Looking around
//!
//! ```no_run
//! # let client = mqfs::Client::connect(mqfs::DEFAULT_KEY)?;
//! if client.metadata("/var/log")?.is_dir() {
//!     for entry in client.read_dir("/var/log")? {
//!         let entry = entry?;
//!         println!("{:>12} {}", entry.metadata().len(), mqfs::escape::escape(entry.name()));
//!     }
//! }
//! # Ok::<(), mqfs::Error>(())
//! ```
//!
//! # Whole trees
//!
//! [`walk`](Client::walk) brings a directory with all that is below it in one request, which is what
//! makes many small files fast. [`write_tree`](client::save::write_tree) writes what comes below a
//! folder, and nowhere else, whatever the server calls it.
//!
//! ```no_run
//! use mqfs::client::save::{Folder, Options, write_tree};
//!
//! let mut walk = mqfs::Client::connect(mqfs::DEFAULT_KEY)?.walk("/srv/site")?;
//! let (folder, name) = (Folder::open("/tmp")?, Some("site".as_ref()));
//! let report = write_tree(&mut walk, &folder, name, &Options::default(), &mut |_event| {})?;
//! assert_eq!(report.problems, 0, "an event told of each");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Errors
//!
//! An [`Error`] says what happened in words that can be shown as they are. It becomes an
//! [`io::Error`](std::io::Error) of the kind that a file of one's own would give (`NotFound`,
//! `PermissionDenied`, `TimedOut`, ...), and [`downcast`](std::io::Error::downcast) brings it back.
//!
//! # Serving
//!
//! [`server::Server`] is what `mqfs-server` runs; it expects a process to itself. [`reaper`] removes
//! what dead processes left.
//!
//! # The map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`sysv`] | typed, safe System V message queues; knows nothing of mqfs |
//! | [`wire`] | bytes ⇄ requests, replies and leases |
//! | `process` | forking, credentials, signals, and who is alive |
//! | [`stats`] | a server's figures, in shared memory |
//! | [`client`], [`server`], [`reaper`] | the three programs, as a library |
//! | `cli` | their arguments, wording and exit codes (feature `programs`) |

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "mqfs is for 64-bit Linux: it stands on that kernel's message queues (MSG_COPY, MSG_STAT_ANY)"
);

#[cfg(feature = "programs")]
#[doc(hidden)] // for the programs: no part of the library's promise
pub mod cli;
pub mod client;
pub mod counters;
pub mod escape;
#[doc(hidden)] // for the programs and the tests: no part of the library's promise
pub mod ownership;
pub mod reaper;
#[cfg(feature = "server")]
pub mod server;
#[allow(unsafe_code)]
#[doc(hidden)] // for the programs and the tests: no part of the library's promise
pub mod sys;
pub mod wire;

/// The crate whose types for errnos, uids and pids stand in this one's signatures.
pub use nix;
/// Typed, safe System V IPC.
pub use sysv_ipc;

pub use client::{Client, DirEntry, Error, Metadata, ReadDir, Transfer, Walk, WalkEntry};
pub use wire::DEFAULT_KEY;
