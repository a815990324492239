//! Requests for one transfer: the first, and others after an answer was lost.
//!
//! `reply_watch` notices that a server or its child has died, `Error::is_retryable` says which
//! errors another request may mend, and the caller of `ask_again` says what is still missing.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sysv_ipc::{MessageBuffer, SendError};

use super::answer::Answer;
use super::backoff;
use super::builder::ClientBuilder;
use super::error::{Cause, Error};
use super::reply_queue::ReplyQueue;
use super::reply_watch::Watch;
use super::trusted_server::TrustedServer;
use crate::sys::AdaptiveSpin;
use crate::wire::{
    Extension, MAX_PATH, MAX_PLAIN_REQUEST, NORMAL_PRIORITY, Operation, Range, Request,
};

/// Asks one server, and counts the retries that are left. Every transfer has its own.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    options: ClientBuilder,
    pub(super) watch: Watch,
    retries_left: u32,
}

impl Requester {
    pub(super) fn new(options: ClientBuilder) -> Self {
        Self { options, watch: Watch::new(), retries_left: options.retries }
    }

    /// The request queue of the server, looked up now.
    pub(super) fn find_server(&self) -> Result<TrustedServer, Error> {
        TrustedServer::find(self.options.key, self.options.server_uid)
    }

    /// Asks for the first time, and again while the server is busy or restarts, or if it dies
    /// before it answers.
    pub(super) fn ask(&mut self, path: &Path, operation: Operation<'_>) -> Result<Answer, Error> {
        check_path(path)?;
        if self.options.plain && operation != Operation::Fetch(Range::WHOLE) {
            return Err(Cause::PlainServer.into());
        }
        match self.ask_once(path, operation) {
            Err(error)
                if error.is_retryable() || error.is_busy() || error.is_server_restarting() =>
            {
                self.ask_again(path, operation, error)
            }
            outcome => outcome,
        }
    }

    /// Asks with growing pauses until there is an answer, after the answer to an earlier request
    /// was `lost`. Waiting for a server that is busy or absent uses up no retry.
    pub(super) fn ask_again(
        &mut self,
        path: &Path,
        operation: Operation<'_>,
        mut lost: Error,
    ) -> Result<Answer, Error> {
        let mut pauses = backoff::for_server(self.options.timeout);
        loop {
            if lost.is_retryable() {
                let Some(left) = self.retries_left.checked_sub(1) else { return Err(lost) };
                self.retries_left = left;
            }
            lost = loop {
                let Some(pause) = pauses.next() else { return Err(lost) };
                self.watch.sleep(pause)?;
                match self.ask_once(path, operation) {
                    Err(error) if error.is_no_server() => {}
                    Err(error) if error.is_retryable() || error.is_busy() => break error,
                    outcome => return outcome,
                }
            };
        }
    }

    /// Allows the full number of retries again: the transfer made progress.
    pub(super) fn restore_retries(&mut self) {
        self.retries_left = self.options.retries;
    }

    fn ask_once(&self, path: &Path, operation: Operation<'_>) -> Result<Answer, Error> {
        let ClientBuilder { timeout, plain, .. } = self.options;
        let server = self.find_server()?;
        let reply = ReplyQueue::create(&self.watch, &server, plain, timeout)?;
        self.send(&server, &encode(&server, &reply, path, operation))?;
        Answer::begin(reply).map_err(|error| server.explain_silence(error, plain))
    }

    /// Sends a request, waiting for room in the request queue until the timeout.
    fn send(&self, server: &TrustedServer, request: &[u8]) -> Result<(), Error> {
        let message = MessageBuffer::with_text(NORMAL_PRIORITY, request);
        let try_send = || match server.queue.try_send(&message) {
            Err(SendError::Full | SendError::Interrupted) => None,
            outcome => Some(outcome),
        };
        let never_fits =
            || server.queue.status().is_ok_and(|status| request.len() as u64 > status.max_bytes);
        let sent = match AdaptiveSpin::default().attempt(try_send) {
            Some(sent) => sent,
            // The queue never has room for it, however long we wait: msgop(2).
            None if never_fits() => return Err(Cause::RequestTooBig.into()),
            None => self.send_when_room(server, try_send)?,
        };
        let key = server.key;
        sent.map_err(|error| match error {
            SendError::TooBig => Cause::RequestTooBig.into(),
            SendError::Os(error) if error.is_denied() => Cause::NotAllowed { key }.into(),
            SendError::Os(error) => error.into(),
            // The queue existed a moment ago: this server or the next one will make it again.
            _ => Cause::ServerRestarting { key }.into(),
        })
    }

    /// Waits for room by trying again and again. A wait in msgsnd(2) could be ended only by
    /// signals: the queue is not ours to remove.
    fn send_when_room<T>(
        &self,
        server: &TrustedServer,
        mut try_send: impl FnMut() -> Option<T>,
    ) -> Result<T, Error> {
        for pause in backoff::for_room(self.options.timeout) {
            self.watch.sleep(pause)?;
            // Check after every pause: the queue may be gone, and its id may be another user's by
            // now.
            match self.find_server() {
                Ok(found) if found == *server => {}
                Ok(_) | Err(Error(Cause::NoServer { .. })) => {
                    return Err(Cause::ServerRestarting { key: server.key }.into());
                }
                Err(error) => return Err(error),
            }
            if let Some(sent) = try_send() {
                return Ok(sent);
            }
        }
        Err(Cause::TimedOut(self.options.timeout).into())
    }
}

fn check_path(path: &Path) -> Result<(), Error> {
    const { assert!(MAX_PATH == 4095) } // the message below says so
    let bytes = path.as_os_str().as_bytes();
    let wrong = match bytes.len() {
        0 => "a path must not be empty",
        length if length > MAX_PATH => "the path is longer than 4095 bytes",
        _ if bytes.contains(&0) => "a path must not hold a NUL",
        _ => return Ok(()),
    };
    Err(Cause::InvalidPath(wrong).into())
}

/// Encodes the request. A plain server ignores the extension, unless its receive buffer is too
/// small: then TLPI's server exits. So a long request to a queue without our mark has no extension.
fn encode(
    server: &TrustedServer,
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
