//! The life of a child: become the caller → open → seal → stream, one way, and a line in the log.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::admission::Admitted;
use super::confine::sandbox::Sandbox;
use super::loggable::loggable;
use super::resolve::export::Export;
use super::send::outbox::{Outbox, Undelivered};
use super::send::transfer::{self, SendFailure, Sent};
use crate::counters::{Failure, Writer};
use crate::server::confine::group_cache::Groups;
use crate::sys::exit_now;

/// What every child needs.
#[derive(Debug)]
pub(crate) struct RequestHandler {
    pub(crate) export: Export,
    pub(crate) sandbox: Sandbox,
    /// None if this server can become nobody else.
    pub(crate) groups: RefCell<Option<Groups>>,
    pub(crate) stall_timeout: Duration,
    pub(crate) figures: Writer,
}

/// The exit status of a child whose client may still be there, and knows nothing.
pub(crate) const GAVE_UP: i32 = 75; // EX_TEMPFAIL, sysexits(3head)

impl RequestHandler {
    /// Answers one request. Runs in a child of its own, and ends it.
    pub(crate) fn answer(&self, admitted: Admitted<'_>, received: Instant) -> Infallible {
        let mut outbox = Outbox::new(admitted.reply, self.stall_timeout, received);
        outbox.counts_in(&self.figures);
        let outcome = self.send(admitted, &mut outbox);
        if let Err(SendFailure::Unreadable { text, errno }) = &outcome {
            // The client may be gone by now; the line in the log tells why it was to be told.
            let _ = outbox.send(&admitted.reply.failure(text, *errno));
        }
        outbox.count_rest();
        self.count(&outcome, received);
        log(admitted, &outcome, outbox.sent, received);
        exit_now(match outcome {
            Err(SendFailure::Undelivered(why)) if !why.is_for_good() => GAVE_UP,
            _ => 0,
        })
    }

    fn send(&self, admitted: Admitted<'_>, outbox: &mut Outbox) -> Result<Sent, SendFailure> {
        let confined = admitted.become_caller(self.groups.take()).map_err(|errno: Errno| {
            SendFailure::Unreadable {
                text: "the server cannot act for this user".to_owned(),
                errno,
            }
        })?;
        let opened = self.export.open(&confined).map_err(|error| SendFailure::Unreadable {
            text: error.to_string(),
            errno: error.errno(),
        })?;
        let sealed = self.sandbox.seal(opened).map_err(|errno| SendFailure::Unreadable {
            text: "the server has no room to confine itself".to_owned(),
            errno,
        })?;
        transfer::stream(sealed, admitted.reply.dialect, outbox)
    }

    /// After the last message: the first touch of the figures' memory in a child is a page fault.
    fn count(&self, outcome: &Result<Sent, SendFailure>, received: Instant) {
        match outcome {
            Ok(_) => self.figures.completed(received.elapsed()),
            Err(SendFailure::Undelivered(Undelivered::Gone | Undelivered::Dead(_))) => {
                self.figures.client_gone();
            }
            Err(SendFailure::Undelivered(Undelivered::Stalled)) => {
                self.figures.failed(Failure::Stalled)
            }
            Err(SendFailure::Undelivered(_)) => self.figures.failed(Failure::Other),
            Err(SendFailure::Unreadable { errno, .. }) => self.figures.failed((*errno).into()),
        }
    }
}

/// One line for every request.
fn log(admitted: Admitted<'_>, outcome: &Result<Sent, SendFailure>, bytes: u64, received: Instant) {
    let uid = admitted.caller.uid.as_raw();
    let queue = admitted.reply.queue.id().get();
    let path = loggable(admitted.path);
    let ms = (received.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    let outcome = match outcome {
        Ok(Sent { changed: false }) => "sent".to_owned(),
        Ok(Sent { changed: true }) => "sent, but the file changed".to_owned(),
        Err(broken) => broken.to_string(),
    };
    tracing::info!(uid, queue, path, bytes, ms, outcome);
}
