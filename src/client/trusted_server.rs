//! Finding the request queue of a trusted server.

use sysv_ipc::{Key, Queue, Uid};

use super::error::{Cause, Error};
use crate::ownership::server_state::ServerState;
use crate::sys::geteuid;
use crate::wire::is_request_queue_mode;

/// The request queue of a trusted server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TrustedServer {
    pub(super) key: Key,
    pub(super) queue: Queue,
    pub(super) owner: Uid,
    /// Whether the queue carries the mark of an mqfs server. If not, it is another program's.
    pub(super) marked: bool,
}

impl TrustedServer {
    /// Looks the queue up anew: the id of an earlier look-up may be another user's queue by now.
    pub(super) fn find(key: Key, trusted: Option<Uid>) -> Result<Self, Error> {
        let no_server = |error: sysv_ipc::Error| -> Error {
            if !error.is_gone() {
                error.into()
            } else if server_runs(key, trusted) {
                Cause::ServerRestarting { key }.into()
            } else {
                Cause::NoServer { key }.into()
            }
        };
        let queue = Queue::open(key).map_err(no_server)?;
        let permissions = queue.status().map_err(no_server)?.permissions;
        // The creator keeps the right to read, whatever owner IPC_SET gives the queue.
        for uid in [permissions.uid, permissions.cuid] {
            if !uid.is_root() && uid != geteuid() && Some(uid) != trusted {
                return Err(Cause::Untrusted { key, uid }.into());
            }
        }
        let marked = is_request_queue_mode(permissions.mode);
        let server = Self { key, queue, owner: permissions.uid, marked };
        if server.is_dead() && marked {
            return Err(Cause::ServerDead { key }.into());
        }
        Ok(server)
    }

    /// Whether its request queue is still the one under its key.
    pub(super) fn is_current(&self) -> bool {
        Queue::open(self.key) == Ok(self.queue)
    }

    /// Whether nobody holds the server lock.
    pub(super) fn is_dead(&self) -> bool {
        ServerState::of(self.key, self.owner) == ServerState::Dead
    }
}

/// Whether a trusted user holds the server lock of the key.
fn server_runs(key: Key, trusted: Option<Uid>) -> bool {
    let mut owners = [geteuid()].into_iter().chain(trusted);
    owners.any(|owner| ServerState::of(key, owner) == ServerState::Running)
}
