//! Sending one request to the server.

use std::path::Path;

use sysv_ipc::{MessageBuffer, Queue, SendError};

use super::backoff;
use super::builder::ClientBuilder;
use super::error::{Cause, Error};
use super::reply_queue::ReplyQueue;
use super::server_queue::ServerQueue;
use super::watch::Watch;
use crate::sys::AdaptiveSpin;
use crate::wire::{Extension, MAX_PLAIN_REQUEST, NORMAL_PRIORITY, Operation, Request};

/// Sends a request, waiting for room in the request queue until the timeout.
pub(super) fn send(
    options: &ClientBuilder,
    watch: &Watch,
    server: &ServerQueue,
    reply: &ReplyQueue,
    path: &Path,
    operation: Operation<'_>,
) -> Result<(), Error> {
    let request = encode(server, reply, path, operation);
    let message = MessageBuffer::with_text(NORMAL_PRIORITY, &request);
    let try_send = || match server.queue.try_send(&message) {
        Err(SendError::Full | SendError::Interrupted) => None,
        outcome => Some(outcome),
    };
    let sent = match AdaptiveSpin::default().attempt(try_send) {
        Some(sent) => sent,
        // The queue never has room for it, however long we wait: msgop(2).
        None if exceeds_capacity(server.queue, &message) => return Err(Cause::RequestTooBig.into()),
        None => send_when_room(options, watch, server, try_send)?,
    };
    let key = server.key;
    sent.map_err(|error| match error {
        SendError::TooBig => Cause::RequestTooBig.into(),
        SendError::Os(error) if error.is_denied() => Cause::NotAllowed { key }.into(),
        SendError::Os(error) => error.into(),
        // The queue existed a moment ago; it, or the next server's, will exist again.
        _ => Cause::ServerRestarting { key }.into(),
    })
}

/// Waits for room by trying again and again. A wait in msgsnd(2) could be ended only by signals:
/// the queue is not ours to remove.
fn send_when_room<T>(
    options: &ClientBuilder,
    watch: &Watch,
    server: &ServerQueue,
    mut try_send: impl FnMut() -> Option<T>,
) -> Result<T, Error> {
    for pause in backoff::for_room(options.timeout) {
        watch.sleep(pause)?;
        // Check after every pause: the queue may be gone, and its id may be another user's by now.
        match ServerQueue::find(options.key, options.server_uid) {
            Ok(found) if found == *server => {}
            Ok(_) => return Err(Cause::ServerRestarting { key: server.key }.into()),
            Err(Error(Cause::NoServer { key })) => {
                return Err(Cause::ServerRestarting { key }.into());
            }
            Err(error) => return Err(error),
        }
        if let Some(sent) = try_send() {
            return Ok(sent);
        }
    }
    Err(Cause::TimedOut(options.timeout).into())
}

fn exceeds_capacity(queue: Queue, request: &MessageBuffer) -> bool {
    queue.status().is_ok_and(|status| request.text().len() as u64 > status.max_bytes)
}

/// Encodes the request. A plain server ignores the extension, unless its receive buffer is too
/// small for it: TLPI's server then ends. So a long request to a queue without our mark has none.
fn encode(
    server: &ServerQueue,
    reply: &ReplyQueue,
    path: &Path,
    operation: Operation<'_>,
) -> Vec<u8> {
    let extension = reply.cookie.map(|cookie| Extension { cookie, operation });
    let request = Request { reply_queue: reply.id(), path, extension };
    let encoded = request.encode();
    if server.marked || encoded.len() <= MAX_PLAIN_REQUEST {
        return encoded;
    }
    Request { extension: None, ..request }.encode()
}
