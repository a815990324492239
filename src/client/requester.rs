//! Requests for one transfer: the first, and others after an answer was lost.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::answer::Answer;
use super::backoff;
use super::builder::ClientBuilder;
use super::error::{Cause, Error};
use super::reply_queue::ReplyQueue;
use super::request;
use super::server_queue::ServerQueue;
use super::watch::Watch;
use crate::wire::{MAX_PATH, Operation, Range};

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
    pub(super) fn find_server(&self) -> Result<ServerQueue, Error> {
        ServerQueue::find(self.options.key, self.options.server_uid)
    }

    /// Asks for the first time, and again while the server is busy, restarts or dies.
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
        request::send(&self.options, &self.watch, &server, &reply, path, operation)?;
        Answer::begin(reply).map_err(|error| server.explain_silence(error, plain))
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
