//! Sending to a client that may read slowly, stop, die, or take its queue away.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::admit::{Dialect, ReplyTo};
use crate::process::lease::{self, Head};
use crate::process::liveness::{Dead, Life, Observer};
use crate::process::{Patience, signals};
use crate::sysv::{self, Limits, MessageBuffer, SendError};
use crate::wire::{Lease, MAX_PLAIN_REPLY, MAX_REPLY};

/// The way to one client.
#[derive(Debug)]
pub(super) struct Outbox {
    reply: ReplyTo,
    stall_timeout: Duration,
    patience: Patience,
    ticking: bool,
    /// When the last message was about to be sent, or the request received.
    last_sent: Instant,
    /// Bytes of the file that were sent.
    pub(super) sent: u64,
}

/// Why the client did not get a message. The first three are nobody's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undelivered {
    #[error("client gone")]
    Gone,
    #[error("client dead: {0}")]
    Dead(Dead),
    #[error("client stalled")]
    Stalled,
    #[error("setitimer: {0}")]
    NoTimer(Errno),
    #[error(transparent)]
    Os(sysv::Error),
}

impl Outbox {
    /// How often a child that waits looks whether its client still lives.
    const TICK: Duration = Duration::from_secs(1);

    /// For a queue that was admitted after this moment.
    pub(super) fn new(reply: ReplyTo, stall_timeout: Duration, last_sent: Instant) -> Self {
        let patience = Patience::default();
        Self { reply, stall_timeout, patience, ticking: false, last_sent, sent: 0 }
    }

    /// The most bytes that a DATA should carry.
    pub(super) fn chunk(&self) -> usize {
        let msgmax = Limits::current().map_or(MAX_PLAIN_REPLY, |limits| limits.msgmax);
        let queue = usize::try_from(self.reply.max_bytes).unwrap_or(usize::MAX);
        match self.reply.dialect {
            Dialect::Plain => chunk(queue, msgmax.min(MAX_PLAIN_REPLY)),
            Dialect::Extended(_) => chunk(queue.saturating_sub(Lease::SIZE), msgmax.min(MAX_REPLY)),
        }
    }

    /// Sends a message: tries for a while, then waits, looking after the client now and then.
    ///
    /// Ids come round again, in seconds at best; reading a file may take as long. So after a pause
    /// the lease is looked at before anything is sent. Between two messages that follow each other
    /// sooner a queue can go, which the next one finds out, but not come again.
    pub(super) fn send(&mut self, message: &MessageBuffer) -> Result<(), Undelivered> {
        let now = Instant::now();
        if now.duration_since(self.last_sent) >= Self::TICK {
            self.check_lease()?;
        }
        self.last_sent = now;
        self.deliver(message)
    }

    fn deliver(&mut self, message: &MessageBuffer) -> Result<(), Undelivered> {
        let queue = self.reply.queue;
        let tried = self.patience.attempt(|| match queue.try_send(message) {
            Err(SendError::Full | SendError::Interrupted) => None,
            outcome => Some(outcome),
        });
        match tried {
            Some(outcome) => outcome.map_err(undelivered),
            None => self.send_waiting(message),
        }
    }

    fn send_waiting(&mut self, message: &MessageBuffer) -> Result<(), Undelivered> {
        if !self.ticking {
            signals::tick_every(Self::TICK).map_err(Undelivered::NoTimer)?;
            self.ticking = true;
        }
        let since = Instant::now();
        loop {
            match self.reply.queue.send(message) {
                Err(SendError::Interrupted) => {}
                outcome => return outcome.map_err(undelivered),
            }
            if since.elapsed() >= self.stall_timeout {
                return Err(Undelivered::Stalled);
            }
            self.look_after_client()?;
        }
    }

    /// A queue that no longer carries the lease is another one under the same id. Nor is one ours
    /// that can no longer be read.
    fn check_lease(&self) -> Result<(), Undelivered> {
        match self.reply.dialect.lease() {
            Some(lease) if lease::peek(self.reply.queue) != Head::Lease(lease) => {
                Err(Undelivered::Gone)
            }
            _ => Ok(()),
        }
    }

    /// Ends the wait for a client that is proven dead, and removes what it left.
    fn look_after_client(&self) -> Result<(), Undelivered> {
        self.check_lease()?;
        let Some(lease) = self.reply.dialect.lease() else { return Ok(()) };
        match Observer::new().life_nearby(&lease.owner) {
            Life::Alive(_) => Ok(()),
            Life::Dead(proof) => {
                // The creator may; a server that the queue was handed to may as well, and may
                // others' queues too: by now the id could be one's of those.
                self.check_lease()?;
                let _ = self.reply.queue.remove();
                Err(Undelivered::Dead(proof))
            }
        }
    }
}

fn undelivered(error: SendError) -> Undelivered {
    match error {
        SendError::Os(error) => Undelivered::Os(error),
        // Sized from the queue's own limits, so never too big unless they were lowered: the queue
        // of a client that can no longer be served.
        _ => Undelivered::Gone,
    }
}

/// The size of a DATA such that two fit into the queue, and that fills whole pages in the kernel:
/// the first holds a header of 48 bytes, each further one of 8 (ipc/msgutil.c).
fn chunk(queue: usize, limit: usize) -> usize {
    const PAGE: usize = 4096;
    let most = limit.min(queue / 2).max(1);
    let pages = (most + 40) / (PAGE - 8);
    if pages == 0 { most } else { pages * (PAGE - 8) - 40 }
}

#[cfg(test)]
mod tests {
    use super::chunk;

    #[test]
    fn two_chunks_of_whole_pages_fit_beside_the_lease() {
        assert_eq!(chunk(16_384 - 56, 8192), 8136); // the defaults
        assert_eq!(chunk(16_384, 4096), 4048); // a plain client
        assert_eq!(chunk(1 << 20, 65_536), 65_368); // raised limits
    }

    #[test]
    fn a_small_queue_gets_small_chunks() {
        assert_eq!(chunk(100, 8192), 50);
        assert_eq!(chunk(0, 8192), 1);
    }
}
