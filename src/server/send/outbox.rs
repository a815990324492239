//! Sends messages to a client that may read slowly, stop, die, or remove its queue.

use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use sysv_ipc::{Message, MessageBuffer, QueueLimits, SendError};

use crate::counters::Writer;
use crate::ownership::liveness::{Dead, Life, Observer};
use crate::server::admission::{Dialect, ReplyTo};
use crate::sys::{AdaptiveSpin, signals};
use crate::wire::{Lease, MAX_PLAIN_REPLY, MAX_REPLY, Reply};

/// Sends messages to one client.
#[derive(Debug)]
pub(crate) struct Outbox<'a> {
    reply: ReplyTo,
    stall_timeout: Duration,
    chunk: usize,
    spin: AdaptiveSpin,
    ticking: bool,
    /// When the last message was sent, or the request received.
    last_sent: Instant,
    /// Since when the client has read nothing, and the time of its last read before that.
    unread: Option<(Instant, Option<SystemTime>)>,
    /// How many bytes of the file were sent, and how many of them the counters do not include yet.
    sent: u64,
    uncounted: u64,
    last_counted: Instant,
    counters: &'a Writer,
}

/// Why a message did not reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undelivered {
    /// The client removed its queue.
    #[error("client gone")]
    Gone,
    /// The client died; its queue is removed.
    #[error("client dead: {0}")]
    Dead(Dead),
    /// The client did not read for the stall timeout.
    #[error("client stalled")]
    Stalled,
    #[error("setitimer: {0}")]
    NoTimer(Errno),
    #[error(transparent)]
    Os(sysv_ipc::Error),
}

impl<'a> Outbox<'a> {
    /// The most bytes to read at once. With more, the first bytes would leave the CPU's cache
    /// before they are sent.
    const MAX_BATCH: usize = 128 << 10;

    /// How often a child that waits checks whether its client is alive.
    const TICK: Duration = Duration::from_secs(1);

    /// The counters are updated after this many bytes or this much time. So they show a transfer
    /// while it runs, and counting costs almost nothing.
    const COUNT_BYTES: u64 = 1 << 20;
    const COUNT_INTERVAL: Duration = Duration::from_millis(200);

    /// For a request that was received at this moment, before its admission.
    pub(crate) fn new(
        reply: ReplyTo,
        stall_timeout: Duration,
        counters: &'a Writer,
        received: Instant,
    ) -> Self {
        Self {
            reply,
            stall_timeout,
            chunk: chunk_for(&reply),
            spin: AdaptiveSpin::default(),
            ticking: false,
            last_sent: received,
            unread: None,
            sent: 0,
            uncounted: 0,
            last_counted: received,
            counters,
        }
    }

    /// How many bytes of the file were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Brings the counters up to date.
    pub(crate) fn count_sent(&mut self) {
        self.counters.sent(std::mem::take(&mut self.uncounted));
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.reply.dialect, Dialect::Plain)
    }

    /// The most bytes for one DATA.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    /// How many bytes to take from a source at once, in whole DATA. From a fast source it takes
    /// several DATA: one by one takes a seventh longer in all. From others it takes no more than
    /// the queue holds, because the client waits meanwhile.
    pub(super) fn batch(&self, is_quick: bool) -> usize {
        let queue = usize::try_from(self.reply.max_bytes).unwrap_or(Self::MAX_BATCH);
        let most = if is_quick { Self::MAX_BATCH } else { queue.min(Self::MAX_BATCH) };
        // A message's type overwrites the bytes before it, which must be aligned.
        let aligned = self.chunk.is_multiple_of(MessageBuffer::ALIGNMENT);
        self.chunk * if aligned { (most / self.chunk).max(1) } else { 1 }
    }

    /// Sends bytes of the file as a DATA.
    pub(super) fn send_data(
        &mut self,
        buffer: &mut MessageBuffer,
        part: Range<usize>,
    ) -> Result<(), Undelivered> {
        let bytes = part.len() as u64;
        self.send(buffer.part(Reply::DATA, part))?;
        self.sent += bytes;
        self.uncounted += bytes;
        Ok(())
    }

    /// Sends a message: tries for a short time, then waits, and checks on the client every second.
    ///
    /// Reading a file may take so long that the kernel gives the queue's id to another queue, which
    /// takes seconds at least. So after a pause it checks the queue first. Between two quick
    /// messages, the queue can be removed, which msgsnd reports, but its id is not reused.
    pub(crate) fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Undelivered> {
        let now = Instant::now();
        if now.duration_since(self.last_sent) >= Self::TICK {
            self.check_queue()?;
        }
        self.last_sent = now;
        self.unread = None;
        if self.uncounted >= Self::COUNT_BYTES
            || now.duration_since(self.last_counted) >= Self::COUNT_INTERVAL
        {
            self.count_sent();
            self.last_counted = now;
        }
        self.deliver(message.into())
    }

    /// Once a second, while the source works: sends a DATA without bytes as a sign of life, and
    /// checks on the client. A client that does not read for the stall timeout has stalled.
    pub(super) fn keep_alive(&mut self) -> Result<(), Undelivered> {
        if self.last_sent.elapsed() < Self::TICK {
            return Ok(());
        }
        self.check_client()?;
        let now = Instant::now();
        self.last_sent = now;
        // The lease counts as one message.
        let status = self.reply.queue.status().ok().filter(|status| status.messages > 1);
        let Some(status) = status else {
            self.unread = None;
            return self.deliver((&MessageBuffer::with_text(Reply::DATA, &[])).into());
        };
        // A client that has received a message meanwhile is slow, but not stalled.
        let since = match self.unread {
            Some((since, read_at)) if read_at == status.received_at => since,
            _ => now,
        };
        self.unread = Some((since, status.received_at));
        if now.duration_since(since) >= self.stall_timeout {
            return Err(Undelivered::Stalled);
        }
        Ok(())
    }

    fn deliver(&mut self, message: Message<'_>) -> Result<(), Undelivered> {
        let queue = self.reply.queue;
        let tried = self.spin.attempt(|| match queue.try_send(message) {
            Err(SendError::Full | SendError::Interrupted) => None,
            outcome => Some(outcome),
        });
        match tried {
            Some(outcome) => outcome.map_err(undelivered),
            None => self.send_waiting(message),
        }
    }

    fn send_waiting(&mut self, message: Message<'_>) -> Result<(), Undelivered> {
        if !self.ticking {
            signals::tick(Self::TICK).map_err(Undelivered::NoTimer)?;
            self.ticking = true;
        }
        let since = Instant::now();
        loop {
            match self.reply.queue.send(message) {
                Err(SendError::Interrupted) => {}
                outcome => return outcome.map_err(undelivered),
            }
            self.count_sent();
            self.check_client()?;
            if since.elapsed() >= self.stall_timeout {
                // This process may have been stopped (SIGSTOP) while the client read.
                return match self.reply.queue.try_send(message) {
                    Err(SendError::Full | SendError::Interrupted) => Err(Undelivered::Stalled),
                    outcome => outcome.map_err(undelivered),
                };
            }
        }
    }

    fn check_queue(&self) -> Result<(), Undelivered> {
        if self.reply.is_clients() { Ok(()) } else { Err(Undelivered::Gone) }
    }

    /// Fails if the client is proven dead, and removes its queue.
    pub(crate) fn check_client(&self) -> Result<(), Undelivered> {
        self.check_queue()?;
        let Some(lease) = self.reply.lease() else { return Ok(()) };
        match Observer::here().life_nearby(&lease.owner) {
            Life::Alive(_) => Ok(()),
            Life::Dead(proof) => {
                // Check again: the id may now be a queue that another user handed to this server,
                // which we have the right to remove too.
                self.check_queue()?;
                let _ = self.reply.queue.remove();
                Err(Undelivered::Dead(proof))
            }
        }
    }
}

fn undelivered(error: SendError) -> Undelivered {
    match error {
        SendError::Os(error) => Undelivered::Os(error),
        // TooBig: somebody lowered the queue's limits, so the client can no longer be served.
        _ => Undelivered::Gone,
    }
}

fn chunk_for(reply: &ReplyTo) -> usize {
    let msgmax = QueueLimits::current().map_or(MAX_PLAIN_REPLY, |limits| limits.msgmax);
    let queue = usize::try_from(reply.max_bytes).unwrap_or(usize::MAX);
    match reply.dialect {
        Dialect::Plain => chunk(queue, msgmax.min(MAX_PLAIN_REPLY)),
        Dialect::Extended(_) => chunk(queue.saturating_sub(Lease::SIZE), msgmax.min(MAX_REPLY)),
    }
}

/// The size of a DATA: two fit into the queue, and each fills whole pages in the kernel, of which
/// the first has a header of 48 bytes and every other one of 8 (ipc/msgutil.c).
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
    fn two_chunks_fit_beside_the_lease_and_fill_whole_pages_if_they_can() {
        assert_eq!(chunk(16_384 - 56, 8192), 8136); // the defaults
        assert_eq!(chunk(16_384, 4096), 4048); // a plain client
        assert_eq!(chunk(1 << 20, 65_536), 65_368); // raised limits
        assert_eq!(chunk(100, 8192), 50);
        assert_eq!(chunk(0, 8192), 1);
    }
}
