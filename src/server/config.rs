//! How a server is to run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::geteuid;

use super::Error;
use crate::wire::{DEFAULT_KEY, MARK, is_request_queue_mode};
use sysv_ipc::{Key, Mode};

/// How a server is to run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The key of the request queue.
    pub key: Key,
    /// Who may write requests: 0600 and any of the w bits of group (020) and others (002). Reading is
    /// for the server alone: requests hold what proves whose they are.
    pub mode: Mode,
    /// What is served lies below this folder. None: everything, which takes root's rights or a mode
    /// that lets nobody else ask.
    pub root: Option<PathBuf>,
    /// The most children at once, at least 1. At the bound requests wait in the queue.
    pub max_children: u16,
    /// The most children at once for one user, at least 1. At the bound that user's requests are
    /// answered with FAILURE and `EAGAIN`: try again. None: 16 where others may ask; where nobody
    /// else may, there is nobody to be fair to.
    pub max_per_user: Option<u16>,
    /// How long a child waits for a client that does not read.
    pub stall_timeout: Duration,
    /// How long children may go on when the server stops.
    pub drain_timeout: Duration,
    /// Which plain requests are answered.
    pub plain: PlainPolicy,
    /// What a child of its own does at the start and then every so often.
    pub housekeeping: Option<Housekeeping>,
}

/// Work that a server has done beside serving: the same every time.
#[derive(Debug, Clone, Copy)]
pub struct Housekeeping {
    /// How often, but for the first time at once.
    pub every: Duration,
    /// What is done, in a child, which can write no file: see [`Server`](super::Server).
    pub task: fn(),
}

/// Which plain requests are answered. They prove nothing: who can write to the request queue can
/// name any queue as theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainPolicy {
    /// None.
    Never,
    /// All, while the request queue's mode lets nobody but its owner write.
    Owner,
    /// All.
    Any,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key: DEFAULT_KEY,
            mode: Mode::new(0o600),
            root: None,
            max_children: 64,
            max_per_user: None,
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            plain: PlainPolicy::Owner,
            housekeeping: None,
        }
    }
}

impl Config {
    pub(super) fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Whether anybody but root and the server's own user may write requests.
    pub(super) fn lets_others_ask(&self) -> bool {
        [0o020, 0o002].into_iter().any(|bit| self.mode.contains(Mode::new(bit)))
    }

    pub(super) fn max_children(&self) -> usize {
        self.max_children.max(1).into()
    }

    pub(super) fn max_per_user(&self) -> usize {
        const WHERE_OTHERS_ASK: u16 = 16;
        let default = if self.lets_others_ask() { WHERE_OTHERS_ASK } else { self.max_children };
        self.max_per_user.unwrap_or(default).max(1).into()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if !is_request_queue_mode(self.mode.with(MARK)) {
            return Err(Error::Mode { mode: self.mode });
        }
        // Root's server becomes the user who asks; any other gives away what its own user may read.
        if self.root.is_none() && self.lets_others_ask() && !geteuid().is_root() {
            return Err(Error::RootNotGiven { mode: self.mode, uid: geteuid() });
        }
        Ok(())
    }
}
