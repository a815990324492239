use std::time::Duration;

use sysv_ipc::{Key, Uid};

use super::error::Error;
use crate::wire::DEFAULT_KEY;

/// Builds a [`Client`](super::Client) with options; made by
/// [`Client::builder`](super::Client::builder).
#[derive(Debug, Clone, Copy)]
pub struct ClientBuilder {
    pub(super) key: Key,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) plain: bool,
    pub(super) sessions: bool,
    pub(super) server_uid: Option<Uid>,
    pub(super) on_wait: Option<fn(&Error)>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            key: DEFAULT_KEY,
            timeout: Duration::from_secs(30),
            retries: 3,
            plain: false,
            sessions: true,
            server_uid: None,
            on_wait: None,
        }
    }
}

impl ClientBuilder {
    /// The server's key. The default is [`DEFAULT_KEY`](crate::DEFAULT_KEY).
    #[must_use]
    pub fn key(self, key: Key) -> Self {
        Self { key, ..self }
    }

    /// How long a transfer may wait without progress, or for a busy server; 30 seconds by default.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How often in a row to ask again after the server or its child died, or somebody removed the
    /// reply queue, without a byte arriving in between. The default is 3. While no server runs, the
    /// client waits for one until the timeout.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// Whether to speak only the plain protocol: no lease, and nothing is verified.
    #[must_use]
    pub fn plain(self, plain: bool) -> Self {
        Self { plain, ..self }
    }

    /// Whether the client keeps a child of the server for later requests, which are then many times
    /// as fast. The default is true. Without, each child gives up the right to open other files
    /// before it sends the first byte. A [`walk`](super::Client::walk) needs a session in any case.
    #[must_use]
    pub fn sessions(self, sessions: bool) -> Self {
        Self { sessions, ..self }
    }

    /// What to call, with the reason, before the client waits for a server that is busy or absent.
    #[must_use]
    pub fn on_wait(self, tell: fn(&Error)) -> Self {
        Self { on_wait: Some(tell), ..self }
    }

    /// A user whose server the client trusts, besides root and the client's own user.
    #[must_use]
    pub fn server_uid(self, uid: impl Into<Option<Uid>>) -> Self {
        Self { server_uid: uid.into(), ..self }
    }
}
