//! The options of a client.

use std::time::Duration;

use sysv_ipc::{Key, Uid};

use crate::wire::DEFAULT_KEY;

/// Builds a [`Client`](super::Client) with options; made by
/// [`Client::builder`](super::Client::builder).
#[derive(Debug, Clone, Default)]
pub struct ClientBuilder {
    pub(super) options: Options,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) key: Key,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) plain: bool,
    pub(super) server_uid: Option<Uid>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: DEFAULT_KEY,
            timeout: Duration::from_secs(30),
            retries: 3,
            plain: false,
            server_uid: None,
        }
    }
}

impl ClientBuilder {
    /// The server's key. The default is [`DEFAULT_KEY`](crate::DEFAULT_KEY).
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.options.key = key;
        self
    }

    /// How long a transfer waits without progress before it fails. The default is 30 seconds. The
    /// client checks five times a second. It asks a busy server again until this time has passed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// How often in a row to ask again after the server or its child died, or somebody removed the
    /// reply queue, without a byte arriving in between. The default is 3. While no server runs, the
    /// client waits for one until the timeout.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Whether to speak only the plain protocol: no lease, and nothing is verified.
    #[must_use]
    pub fn plain(mut self, plain: bool) -> Self {
        self.options.plain = plain;
        self
    }

    /// A user whose server the client trusts, besides root and the client's own user.
    #[must_use]
    pub fn server_uid(mut self, uid: Option<Uid>) -> Self {
        self.options.server_uid = uid;
        self
    }
}
