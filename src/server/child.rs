//! The life of a child: become the caller → open → seal → stream, one way, and a line in the log.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::admit::Admitted;
use super::export::Export;
use super::outbox::Outbox;
use super::sandbox::Sandbox;
use super::transfer::{self, Broken, Sent};
use crate::process::exit_now;
use crate::text::loggable;

/// What every child needs.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) export: Export,
    pub(super) sandbox: Sandbox,
    pub(super) stall_timeout: Duration,
}

impl Service {
    /// Answers one request. Runs in a child of its own, and ends it.
    pub(super) fn answer(&self, admitted: Admitted<'_>, received: Instant) -> Infallible {
        let mut outbox = Outbox::new(admitted.reply, self.stall_timeout, received);
        let outcome = self.send(admitted, &mut outbox);
        if let Err(Broken::Unreadable { text, errno }) = &outcome {
            // The client may be gone by now; the line in the log tells why it was to be told.
            let _ = outbox.send(&admitted.reply.failure(text, *errno));
        }
        log(admitted, &outcome, outbox.sent, received);
        exit_now(0)
    }

    fn send(&self, admitted: Admitted<'_>, outbox: &mut Outbox) -> Result<Sent, Broken> {
        let confined = admitted.become_caller().map_err(|errno: Errno| Broken::Unreadable {
            text: "the server cannot act for this user".to_owned(),
            errno,
        })?;
        let opened = self.export.open(&confined).map_err(|error| Broken::Unreadable {
            text: error.to_string(),
            errno: error.errno(),
        })?;
        transfer::stream(self.sandbox.seal(opened), admitted.reply.dialect, outbox)
    }
}

/// One line for every request.
fn log(admitted: Admitted<'_>, outcome: &Result<Sent, Broken>, bytes: u64, received: Instant) {
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
