//! A reply queue: created, leased, and handed to the server.

use std::time::Duration;

use sysv_ipc::{MessageBuffer, Mode, Queue, QueueLimits, QueueUsage, Select, SendError, Uid};

use super::error::{Cause, Error};
use super::reply_watch::{Watch, WatchedQueue};
use super::trusted_server::TrustedServer;
use crate::ownership::lease;
use crate::wire::{FrameType, LEASE_TYPE, Lease, REPLY_QUEUE_MODE};

/// The mode of a reply queue without a lease: only its owner and root may use it.
const PLAIN_MODE: Mode = Mode::new(0o600);

/// How often to try to create a queue. If this process is stopped between creating the queue and
/// sending the lease, a reaper may take the queue for an orphan.
const TRIES: usize = 3;

/// Creates the queue of one request, that `server` can send to. It is never reused.
pub(super) fn create(
    watch: &Watch,
    server: &TrustedServer,
    plain: bool,
    in_session: bool,
    timeout: Duration,
) -> Result<WatchedQueue, Error> {
    let plain = plain || (!server.marked && lease_blocks_largest_message()?);
    let mode = if plain { PLAIN_MODE } else { REPLY_QUEUE_MODE };
    let lease = (!plain).then(|| lease::new(server.queue.id()));
    let lease = lease.transpose().map_err(Cause::NoRandom)?;
    let select = match &lease {
        None => Select::Any,
        // An mqfs server sends DATA that hold frames. Our own questions are not for us.
        Some(_) if server.marked => Select::UpTo(FrameType::Meta.mtype()),
        Some(_) => Select::Except(LEASE_TYPE),
    };
    let session = in_session && matches!(select, Select::UpTo(_));
    let cookie = lease.map(|lease| lease.cookie);
    let mut tries = 1;
    loop {
        let created =
            watch.open(mode, server, select, session, cookie, timeout).map_err(count_queues)?;
        match prepare(created.queue, lease.as_ref(), server) {
            Err(Error(Cause::QueueRemoved)) if tries < TRIES => tries += 1,
            outcome => return outcome.map(|()| created),
        }
    }
}

/// Sends the lease, and lets the server send.
fn prepare(queue: Queue, lease: Option<&Lease>, server: &TrustedServer) -> Result<(), Error> {
    if let Some(lease) = lease {
        let message = MessageBuffer::with_text(LEASE_TYPE, &lease.encode());
        queue.try_send(&message).map_err(|error| match error {
            SendError::Os(error) => error.into(),
            SendError::TooBig | SendError::Full => Cause::QueueTooSmall,
            _ => Cause::QueueRemoved,
        })?;
    }
    let Some(user) = server.reply_queue_owner() else { return Ok(()) };
    hand_over(queue, user).map_err(|error| match error {
        gone if gone.is_gone() => Cause::QueueRemoved.into(),
        error => error.into(),
    })
}

/// Whether a new queue cannot hold a lease and a message of the largest size. An mqfs server makes
/// its messages smaller, but another server would wait for ever.
fn lease_blocks_largest_message() -> Result<bool, sysv_ipc::Error> {
    let limits = QueueLimits::current()?;
    Ok(limits.msgmnb < limits.msgmax + Lease::SIZE)
}

/// Makes the server's user the owner, so that it and the creator may send, and nobody else.
fn hand_over(queue: Queue, server: Uid) -> Result<(), sysv_ipc::Error> {
    let mut settings = queue.status()?.settings();
    settings.uid = server;
    // IPC_SET rejects a capacity above msgmnb even if it stays the same, and msgmnb may have been
    // lowered since the queue was created.
    settings.max_bytes = settings.max_bytes.min(QueueLimits::current()?.msgmnb as u64);
    queue.set(&settings)
}

/// If the namespace has no queue left, says how many there are.
fn count_queues(error: Error) -> Error {
    match error.0 {
        Cause::Ipc(error) if error.is_out_of_space() => Cause::NoQueueLeft {
            in_use: QueueUsage::current().map_or(0, |usage| usage.queues),
            limit: QueueLimits::current().map_or(0, |limits| limits.msgmni),
        }
        .into(),
        _ => error,
    }
}
