use sysv_ipc::{Key, Permissions, Queue, Uid};

use super::error::{Cause, Error};
use crate::ownership::server_state::ServerState;
use crate::sys::credentials::{is_unknown_uid, unknown_uid};
use crate::sys::geteuid;
use crate::wire::is_request_queue_mode;

/// The request queue of a trusted server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TrustedServer {
    pub(super) key: Key,
    pub(super) queue: Queue,
    pub(super) owner: Uid,
    /// Whether the owner is mapped in this user namespace. If not, it may be anybody.
    pub(super) is_known: bool,
    /// Whether the queue carries the mark of an mqfs server. If not, it is another program's.
    pub(super) marked: bool,
}

impl TrustedServer {
    /// Looks the queue up anew: the id of an earlier look-up may be another user's queue by now.
    pub(super) fn find(key: Key, trusted: Option<Uid>) -> Result<Self, Error> {
        let no_server = |error: sysv_ipc::Error| -> Error {
            // Users who are, or may be, trusted.
            let mut owners = [geteuid()].into_iter().chain(trusted).chain(unknown_uid());
            if !error.is_gone() {
                error.into()
            } else if owners.any(|owner| ServerState::of(key, owner) == ServerState::Running) {
                Cause::ServerRestarting { key }.into()
            } else {
                Cause::NoServer { key }.into()
            }
        };
        let queue = Queue::open(key).map_err(no_server)?;
        let Permissions { uid: owner, cuid, mode, .. } =
            queue.status().map_err(no_server)?.permissions;
        let is_known = owner.is_root() || !is_unknown_uid(owner);
        // In a user namespace root of the host is not mapped, like everybody else outside. Ask, but
        // do not hand the reply queue over: the kernel then lets only root and this user answer.
        let may_be_root = !is_known && cuid == owner;
        // The creator keeps the right to read, whatever owner IPC_SET gives the queue.
        for uid in [owner, cuid] {
            if !uid.is_root() && uid != geteuid() && Some(uid) != trusted && !may_be_root {
                return Err(Cause::Untrusted { key, uid }.into());
            }
        }
        let marked = is_request_queue_mode(mode);
        let server = Self { key, queue, owner, is_known, marked };
        if server.is_dead() && marked {
            return Err(Cause::ServerDead { key }.into());
        }
        Ok(server)
    }

    /// The user to whom the client must hand its reply queue over. None: the server can answer
    /// without, or nobody must get the queue.
    pub(super) fn reply_queue_owner(&self) -> Option<Uid> {
        let is_other = !self.owner.is_root() && self.owner != geteuid();
        (is_other && self.is_known).then_some(self.owner)
    }

    /// Whether a uid can prove who made the server's shared memory.
    pub(super) fn can_prove_windows(&self) -> bool {
        self.is_known || !is_unknown_uid(geteuid())
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
