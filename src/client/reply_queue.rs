//! A reply queue: made, marked, leased, and handed to the server.

use std::time::Duration;

use crate::sys::geteuid;
use sysv_ipc::Uid;

use super::watch::{Peer, WatchHandle, Watched};
use super::{Error, ServerQueue};
use crate::ownership::lease;
use crate::wire::{Cookie, LEASE_TYPE, Lease, REPLY_QUEUE_MODE};
use sysv_ipc::{
    self, MessageBuffer, Mode, OwnedQueue, Queue, QueueId, QueueLimits, QueueUsage, Select,
    SendError,
};

/// A queue for one attempt at a transfer, never used again.
#[derive(Debug)]
pub(super) struct ReplyQueue {
    pub(super) watched: Watched,
    /// None: this queue has no lease, and what comes to it proves nothing.
    pub(super) cookie: Option<Cookie>,
}

impl ReplyQueue {
    /// The mode of a reply queue without a lease, which only its owner and root may use.
    const PLAIN_MODE: Mode = Mode::new(0o600);

    /// How often an owner that was stopped right here, for so long that its queue was taken for an
    /// orphan, starts over.
    const TRIES: usize = 3;

    /// A queue that `server` can send to.
    pub(super) fn create(
        watch: &WatchHandle,
        server: &ServerQueue,
        plain: bool,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let mut tries = 1;
        loop {
            match Self::try_create(watch, server, plain, timeout) {
                Err(Error::QueueRemoved) if tries < Self::TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn try_create(
        watch: &WatchHandle,
        server: &ServerQueue,
        plain: bool,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let plain = plain || (!server.marked && lease_is_in_the_way()?);
        let mode = if plain { Self::PLAIN_MODE } else { REPLY_QUEUE_MODE };
        let lease = if plain { None } else { Some(new_lease(server.queue.id())?) };
        let own_messages = u64::from(!plain);
        let takes_lock = server.marked;
        let ServerQueue { key, queue: asked, owner, .. } = *server;
        let peer = Peer { key, asked, owner, takes_lock, own_messages };
        let watched =
            watch.open(|| OwnedQueue::private(mode), peer, timeout).map_err(with_remedy)?;
        if let Some(lease) = &lease {
            put_lease(watched.queue(), lease)?;
        }
        if !server.owner.is_root() && server.owner != geteuid() {
            hand_over(watched.queue(), server.owner).map_err(gone_is_removed)?;
        }
        Ok(Self { watched, cookie: lease.map(|lease| lease.cookie) })
    }

    /// Everything but our own lease.
    pub(super) fn select(&self) -> Select {
        match self.cookie {
            Some(_) => Select::Except(LEASE_TYPE),
            None => Select::Any,
        }
    }
}

/// Whether a message of the largest size would not fit into a new queue beside a lease. An mqfs server
/// makes its messages smaller; another one would wait for ever.
fn lease_is_in_the_way() -> Result<bool, sysv_ipc::Error> {
    let limits = QueueLimits::current()?;
    Ok(limits.msgmnb < limits.msgmax + Lease::SIZE)
}

fn new_lease(request_queue: QueueId) -> Result<Lease, Error> {
    lease::new(request_queue).map_err(|error| Error::NoRandom(error.to_string()))
}

fn put_lease(queue: Queue, lease: &Lease) -> Result<(), Error> {
    let message = MessageBuffer::with_text(LEASE_TYPE, &lease.encode());
    queue.try_send(&message).map_err(|error| match error {
        SendError::Os(error) => error.into(),
        SendError::TooBig | SendError::Full => Error::QueueTooSmall,
        // A new queue: it was removed, which takes an owner that stood still right here.
        _ => Error::QueueRemoved,
    })
}

/// Makes the server's uid the owner. The creator keeps its rights, the server gains them, nobody
/// else does.
fn hand_over(queue: Queue, server: Uid) -> Result<(), sysv_ipc::Error> {
    let mut settings = queue.status()?.settings();
    settings.uid = server;
    // IPC_SET compares msg_qbytes with msgmnb even where it does not change; and msgmnb may have
    // been lowered since the queue was made.
    settings.max_bytes = settings.max_bytes.min(QueueLimits::current()?.msgmnb as u64);
    queue.set(&settings)
}

fn gone_is_removed(error: sysv_ipc::Error) -> Error {
    if error.is_gone() { Error::QueueRemoved } else { error.into() }
}

fn with_remedy(error: Error) -> Error {
    match error {
        Error::Ipc(error) if error.is_out_of_space() => Error::NoQueueLeft {
            in_use: QueueUsage::current().map_or(0, |usage| usage.queues),
            limit: QueueLimits::current().map_or(0, |limits| limits.msgmni),
        },
        other => other,
    }
}
