//! The configuration of a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sysv_ipc::{Key, Mode};

use super::error::Error;
use crate::sys::geteuid;
use crate::wire::{DEFAULT_KEY, MARK, is_request_queue_mode};

/// The configuration of a server. [`Default`] gives the values that each field documents.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The key of the request queue. Default: [`DEFAULT_KEY`].
    pub key: Key,
    /// Whether root's server removes a queue that another user made under the key, whatever program
    /// uses it. Otherwise such a queue keeps the server from starting, unless it is marked as
    /// mqfs's or its last receiver has ended. Default: false.
    pub claim_key: bool,
    /// Which users may send requests: 0600 (the server's own and root, the default), and any of the
    /// write bits of group (020) and others (002). Nobody else may read requests, because they
    /// contain cookies.
    pub mode: Mode,
    /// The directory to serve. None (the default): everything, which needs root, or a mode that
    /// lets no other user ask.
    pub root: Option<PathBuf>,
    /// The most children at once, at least 1; those that wait for a file system that does not
    /// answer do not count. At the limit, requests wait in the queue. Default: 64.
    pub max_children: u16,
    /// The most children at once for one user, at least 1. At the limit, the server refuses that
    /// user's requests with `EAGAIN`. None (the default): 16 if other users may ask, otherwise
    /// `max_children`.
    pub max_per_user: Option<u16>,
    /// How long a child waits for a client that does not read, or for a file system that does not
    /// answer. Default: 30 s.
    pub stall_timeout: Duration,
    /// How long a session waits for the next question. Default: 10 s.
    pub idle_timeout: Duration,
    /// How long children may continue after the server is asked to stop. Default: 10 s.
    pub drain_timeout: Duration,
    /// The size of the shared memory for a large file, in bytes; 0: none. Default: 2 MiB.
    pub window: usize,
    /// Which plain requests the server answers. Default: [`PlainPolicy::Owner`].
    pub plain: PlainPolicy,
    /// How often to remove orphaned queues, first at once. None (the default): never.
    pub reap_interval: Option<Duration>,
}

/// Which plain requests a server answers: they prove nothing, and may name another user's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "programs", derive(clap::ValueEnum))] // its help shows these comments
#[non_exhaustive]
pub enum PlainPolicy {
    /// None
    Never,
    /// All, if --mode lets only the owner send requests
    Owner,
    /// All, although a sender can then name another user's queue
    Any,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key: DEFAULT_KEY,
            claim_key: false,
            mode: Mode::new(0o600),
            root: None,
            max_children: 64,
            max_per_user: None,
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            window: 2048 << 10,
            plain: PlainPolicy::Owner,
            reap_interval: None,
        }
    }
}

impl Config {
    pub(super) fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Whether users other than root and the server's own may send requests.
    pub(super) fn lets_others_ask(&self) -> bool {
        [0o020, 0o002].into_iter().any(|bit| self.mode.contains(Mode::new(bit)))
    }

    pub(super) fn max_children(&self) -> usize {
        self.max_children.max(1).into()
    }

    pub(super) fn max_per_user(&self) -> usize {
        let default = if self.lets_others_ask() { 16 } else { self.max_children };
        self.max_per_user.unwrap_or(default).max(1).into()
    }

    /// How many windows one user may have made: the caller if the server is root's, or else the
    /// server's user. Some may outlive their child.
    pub(super) fn most_windows(&self) -> usize {
        2 * if geteuid().is_root() { self.max_per_user() } else { self.max_children() }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if !is_request_queue_mode(self.mode.with(MARK)) {
            return Err(Error::Mode { mode: self.mode });
        }
        // A child reads with the rights of the server's user, unless that is root.
        if self.root.is_none() && self.lets_others_ask() && !geteuid().is_root() {
            return Err(Error::RootNotGiven { mode: self.mode, uid: geteuid() });
        }
        Ok(())
    }
}
