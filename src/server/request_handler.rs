//! The life of a child: become the caller, open, seal, send, and log one line.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::admission::Admitted;
use super::confine::{CallerGroups, GroupFinder, Sandbox, UnknownGroups, become_caller};
use super::loggable::loggable;
use super::resolve::Export;
use super::send::{Outbox, SendFailure, Unanswerable, Undelivered, open, send};
use crate::counters::Writer;
use crate::sys::exit_now;
use crate::wire::Trailer;

/// Answers requests, each in a child. Every child inherits this.
#[derive(Debug)]
pub(super) struct RequestHandler {
    pub(super) export: Export,
    pub(super) sandbox: Sandbox,
    pub(super) groups: GroupFinder,
    pub(super) stall_timeout: Duration,
    pub(super) counters: Rc<Writer>,
}

/// The exit status of a child that gave up on a client that may still be alive. The parent tells
/// the client.
pub(super) const GAVE_UP: i32 = 75; // EX_TEMPFAIL, sysexits(3head)

impl RequestHandler {
    /// Answers one request. Runs in a child, and ends it.
    pub(super) fn answer(&self, request: Admitted<'_>, received: Instant) -> Infallible {
        let mut outbox = Outbox::new(request.reply, self.stall_timeout, &self.counters, received);
        let groups = self.groups.find(&request);
        let outcome = self.send(request, groups.as_ref(), &mut outbox);
        if let Err(SendFailure::Unanswerable(why)) = &outcome {
            // If this fails, the log still has the reason.
            let _ = outbox.send(&request.reply.failure(&why.text, why.errno));
        }
        // Count after the last message: the first access to the counters is a page fault.
        outbox.count_sent();
        match outcome.as_ref().map_err(SendFailure::reason) {
            Ok(_) => self.counters.completed(received.elapsed()),
            Err(Some(reason)) => self.counters.failed(reason),
            Err(None) => self.counters.client_gone(),
        }
        log(request, groups, &outcome, outbox.sent(), received);
        exit_now(match outcome {
            Err(SendFailure::Undelivered(Undelivered::Gone | Undelivered::Dead(_))) => 0,
            Err(SendFailure::Undelivered(_)) => GAVE_UP,
            Ok(_) | Err(SendFailure::Unanswerable(_)) => 0,
        })
    }

    fn send(
        &self,
        request: Admitted<'_>,
        groups: Option<&CallerGroups>,
        outbox: &mut Outbox<'_>,
    ) -> Result<Trailer, SendFailure> {
        let confined = become_caller(request, groups)
            .map_err(|errno| Unanswerable::new("the server cannot act for this user", errno))?;
        if let Some(unknown) = groups.and_then(|groups| groups.unknown)
            && unknown.may_be_hidden()
        {
            return Err(without_groups(unknown, outbox));
        }
        let mut source = open(&self.export, &confined)?;
        let sealed = self.sandbox.seal(source.tree()).map_err(|errno| {
            Unanswerable::new("the server lacks resources to confine itself", errno)
        })?;
        send(sealed, &mut *source, outbox)
    }
}

/// The failure of a request whose caller may have hidden its groups.
fn without_groups(unknown: UnknownGroups, outbox: &Outbox<'_>) -> SendFailure {
    match outbox.check_client() {
        Err(gone) => gone.into(),
        Ok(()) => {
            let text = format!("the server cannot tell the caller's groups: {unknown}");
            Unanswerable::new(text, Errno::EACCES).into()
        }
    }
}

fn log(
    request: Admitted<'_>,
    groups: Option<CallerGroups>,
    outcome: &Result<Trailer, SendFailure>,
    bytes: u64,
    received: Instant,
) {
    let uid = request.caller.uid.as_raw();
    let queue = request.reply.queue.id().get();
    let path = loggable(request.path);
    let ms = (received.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    let outcome = match outcome {
        Ok(Trailer { changed: false, .. }) => "sent".to_owned(),
        Ok(Trailer { changed: true, .. }) => "sent, but the file changed".to_owned(),
        Err(failure) => failure.to_string(),
    };
    let unknown_groups = groups.and_then(|groups| groups.unknown).map(|why| why.to_string());
    tracing::info!(uid, unknown_groups, queue, path, bytes, ms, outcome);
}
