//! Requests: the first, and others after an answer was lost.

use std::sync::atomic::Ordering::Relaxed;

use sysv_ipc::{MessageBuffer, SendError};

use super::backoff;
use super::builder::ClientBuilder;
use super::error::{Cause, Error, ErrorKind};
use super::planned::{PlannedQuestion, check_path};
use super::pool::Pool;
use super::reply_queue;
use super::reply_watch::{Watch, WatchedQueue};
use super::session::Session;
use super::trusted_server::TrustedServer;
use crate::sys::AdaptiveSpin;
use crate::wire::{
    Extension, MAX_PLAIN_REQUEST, NORMAL_PRIORITY, Operation, Question, Range, Request,
};

/// Asks one server, and counts the retries that are left. Every transfer has its own.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    options: ClientBuilder,
    pub(super) watch: Watch,
    pub(super) pool: Pool,
    retries_left: u32,
}

/// How the last session ended, if it did before everything was answered.
#[derive(Debug, Default)]
pub(super) enum Ending {
    #[default]
    None,
    /// The server or its child ended it, as it may. The server may be about to restart.
    SentAway,
    Lost(Error),
}

impl Requester {
    pub(super) fn new(options: ClientBuilder) -> Self {
        let (watch, pool) = (Watch::new(), Pool::default());
        Self { options, watch, pool, retries_left: options.retries }
    }

    pub(super) fn uses_sessions(&self) -> bool {
        self.options.sessions && !self.options.plain
    }

    pub(super) fn find_server(&self) -> Result<TrustedServer, Error> {
        TrustedServer::find(self.options.key, self.options.server_uid)
    }

    /// Asks, and asks again with growing pauses while the server is busy or restarts, or if it dies
    /// before it answers. Waiting for a server that is busy or absent uses up no retry.
    pub(super) fn ask(
        &mut self,
        first: &PlannedQuestion,
        in_session: bool,
        ending: Ending,
    ) -> Result<Session, Error> {
        if self.options.plain && first.operation != Operation::Fetch(Range::WHOLE) {
            return Err(Cause::PlainServer.into());
        }
        let was_sent_away = matches!(ending, Ending::SentAway);
        let mut lost = match ending {
            Ending::Lost(error) => error,
            Ending::SentAway | Ending::None => match self.ask_once(first, in_session) {
                Err(error)
                    if error.is_retryable()
                        || error.is_busy()
                        || error.kind() == ErrorKind::ServerRestarting
                        || (was_sent_away && error.is_no_server()) =>
                {
                    error
                }
                outcome => return outcome,
            },
        };
        if let Some(tell) = self.options.on_wait {
            tell(&lost);
        }
        let mut pauses = backoff::for_server(self.options.timeout);
        loop {
            if lost.is_retryable() {
                let Some(left) = self.retries_left.checked_sub(1) else { return Err(lost) };
                self.retries_left = left;
            }
            lost = loop {
                let Some(pause) = pauses.next() else { return Err(lost) };
                self.watch.sleep(pause)?;
                match self.ask_once(first, in_session) {
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

    fn ask_once(&self, first: &PlannedQuestion, in_session: bool) -> Result<Session, Error> {
        let ClientBuilder { timeout, plain, .. } = self.options;
        let server = self.find_server()?;
        let reply = reply_queue::create(&self.watch, &server, plain, in_session, timeout)?;
        let (question, entering) = first.next_question(None);
        check_path(question.path)?;
        let no_windows = self.pool.no_windows.load(Relaxed);
        let windows = reply.cookie.is_some() && !no_windows && server.can_prove_windows();
        self.send(&server, &encode(&server, &reply, question, windows))?;
        Session::begin(reply, entering, windows).map_err(|error| {
            let Cause::TimedOut(after) = error.0 else { return error };
            let why = if !server.marked {
                "no mqfs-server made the queue under this key: is it the right one?"
            } else if plain {
                // An mqfs server silently refuses requests that prove nothing about their sender.
                "the server may take no plain requests"
            } else if !server.is_known {
                "its user is not mapped in this user namespace: only root or you could answer"
            } else {
                return error;
            };
            Cause::Unanswered(after, why).into()
        })
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
            // Check after every pause: the queue may be gone, and its id be another user's by now.
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

/// Encodes the request. A plain server ignores the extension, unless its receive buffer is too
/// small: then TLPI's server exits. So a long request to a queue without our mark has no extension.
fn encode(
    server: &TrustedServer,
    reply: &WatchedQueue,
    question: Question<'_>,
    windows: bool,
) -> Vec<u8> {
    let (session, extents, unknown_version) = (reply.session, true, None);
    let extension = |cookie| Extension { cookie, session, windows, extents, unknown_version };
    let extension = reply.cookie.map(extension);
    let request = Request { reply_queue: reply.queue.id(), question, extension };
    let encoded = request.encode();
    if server.marked || encoded.len() <= MAX_PLAIN_REQUEST {
        return encoded;
    }
    Request { extension: None, ..request }.encode()
}
