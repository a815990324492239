//! mqfs transfers files between processes on one machine over System V message queues. It needs no
//! port, no socket file and no mount, so it works for sandboxed and chrooted processes that share
//! an IPC namespace with a server.
//!
//! A server owns a well-known *request queue* and forks a child for each request. A client creates
//! a private *reply queue*, names it in its request, receives the answer from it, and removes it. In
//! a *session*, the child answers more questions from the same queue. A reaper removes the queues of
//! processes that are provably dead. mqfs also speaks the protocol of *The Linux Programming
//! Interface* (TLPI), section 46.8: it works with the clients and servers of that book, and with
//! programs modelled on them.
//!
//! # Fetching a file
//!
//! ```no_run
//! use std::io::Read;
//!
//! let client = mqfs::Client::new(mqfs::DEFAULT_KEY);
//! let mut hosts = String::new();
//! client.open("/etc/hosts")?.read_to_string(&mut hosts)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A [`Transfer`] reads like a file. A read returns 0 only after the number of bytes and their
//! checksum were verified; a short file is always an error. If the server dies on the way, the
//! client fetches the file again, leaves out the bytes that you have, and compares their checksum.
//! If the file has changed, the error is [`ErrorKind::FileChanged`].
//!
//! # What else a client can do
//!
//! | to … | use |
//! | --- | --- |
//! | fetch many files, asking ahead | [`Client::open_all`], then [`Files::next_file`] |
//! | fetch a part of a file | [`Client::open_range`] |
//! | list a directory | [`Client::read_dir`] |
//! | look at one file | [`Client::metadata`], [`Client::symlink_metadata`], [`Client::read_link`] |
//! | fetch a directory tree | [`Client::walk`] |
//! | write files that appear complete or not at all | [`client::save`] |
//! | set key, timeout, retries or a trusted server's user | [`Client::builder`] |
//! | not keep a child of the server for later requests | [`ClientBuilder::sessions`] |
//! | stop transfers from another thread | [`Client::canceller`] |
//! | branch on an error | [`Error::kind`]; `?` converts to [`std::io::Error`] |
//!
//! # Trust
//!
//! Any user can create a queue under any key. So a client trusts only servers of root, of its own
//! user, and of one more user that you [name](ClientBuilder::server_uid), and sends nothing to any
//! other server, not even a path.
//!
//! # Writing a tree
//!
//! ```no_run
//! use mqfs::client::save::{Dir, WriteOptions, write_tree};
//!
//! let mut walk = mqfs::Client::new(mqfs::DEFAULT_KEY).walk("/srv/site")?;
//! let (dir, name) = (Dir::open("/tmp")?, Some("site".as_ref()));
//! let report = write_tree(&mut walk, &dir, name, &WriteOptions::default(), &mut |_event| {})?;
//! assert_eq!(report.problems, 0); // an event reports each problem
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! The default feature, `programs`, builds the four programs with clap, and includes `server`: the
//! module of that name, which needs landlock and expects a process of its own. A program that only
//! fetches files needs neither:
//!
//! ```toml
//! mqfs = { version = "0.1", default-features = false } # or path = "…", for a checkout
//! ```

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "mqfs is for 64-bit Linux: it uses that kernel's message queues (MSG_COPY, MSG_STAT_ANY)"
);

#[cfg(feature = "programs")]
#[doc(hidden)] // for the programs; not part of the public API
pub mod cli;
pub mod client;
pub mod counters;
pub mod escape;
#[doc(hidden)] // for the tests; not part of the public API
pub mod ownership;
pub mod reaper;
#[cfg(feature = "server")]
pub mod server;
#[allow(unsafe_code)]
#[doc(hidden)] // for the programs and the tests; not part of the public API
pub mod sys;
#[doc(hidden)] // for the tests; not part of the public API
pub mod wire;

/// Typed, safe System V IPC.
pub use sysv_ipc;

pub use client::{
    Client, ClientBuilder, DirEntry, Error, ErrorKind, FileType, Files, Metadata, ReadDir,
    Transfer, Walk, WalkEntry,
};
pub use wire::DEFAULT_KEY;
