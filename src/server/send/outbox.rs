//! Sending to a client that may read slowly, stop, die, or take its queue away.

use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;

use crate::counters::Writer;
use crate::ownership::liveness::{Dead, Life, Observer};
use crate::server::admission::reply_to::{Dialect, ReplyTo};
use crate::sys::{AdaptiveSpin, signals};
use crate::wire::{Lease, MAX_PLAIN_REPLY, MAX_REPLY, Reply};
use sysv_ipc::{self, Message, MessageBuffer, QueueLimits, SendError};

/// The way to one client.
#[derive(Debug)]
pub(crate) struct Outbox<'a> {
    reply: ReplyTo,
    stall_timeout: Duration,
    chunk: usize,
    patience: AdaptiveSpin,
    ticking: bool,
    /// When the last message was about to be sent, or the request received.
    last_sent: Instant,
    /// Since when nothing was taken of what is there, and when something was before that.
    unread: Option<(Instant, Option<SystemTime>)>,
    /// Bytes of the file that were sent.
    pub(crate) sent: u64,
    /// Where they are counted, how many were, and when.
    figures: Option<&'a Writer>,
    counted: u64,
    last_counted: Instant,
}

/// Why the client did not get a message. The first three are nobody's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undelivered {
    #[error("client gone")]
    Gone,
    #[error("client dead: {0}")]
    Dead(Dead),
    #[error("client stalled")]
    Stalled,
    #[error("setitimer: {0}")]
    NoTimer(Errno),
    #[error(transparent)]
    Os(sysv_ipc::Error),
}

impl Undelivered {
    /// Whether nobody is left whom it would matter to.
    pub(crate) fn is_for_good(self) -> bool {
        matches!(self, Self::Gone | Self::Dead(_))
    }
}

impl<'f> Outbox<'f> {
    /// The most bytes to read at once. Beyond, they would leave the cache before they are sent.
    const MAX_BATCH: usize = 128 << 10;

    /// What is sent is counted when it is this much, or after this time: a transfer is seen while it
    /// is under way, and costs the others nothing.
    const COUNT_EVERY: (u64, Duration) = (1 << 20, Duration::from_millis(200));

    /// How often a child that waits looks whether its client still lives.
    const TICK: Duration = Duration::from_secs(1);

    /// For a queue that was admitted after this moment.
    pub(crate) fn new(reply: ReplyTo, stall_timeout: Duration, last_sent: Instant) -> Self {
        let (chunk, patience) = (chunk_for(&reply), AdaptiveSpin::default());
        Self {
            reply,
            stall_timeout,
            chunk,
            patience,
            ticking: false,
            last_sent,
            unread: None,
            sent: 0,
            figures: None,
            counted: 0,
            last_counted: last_sent,
        }
    }

    /// From now on, what is sent is counted there.
    pub(crate) fn counts_in(&mut self, figures: &'f Writer) {
        self.figures = Some(figures);
    }

    /// Counts what was not counted yet.
    pub(crate) fn count_rest(&mut self) {
        if let (Some(figures), true) = (self.figures, self.sent > self.counted) {
            figures.sent(self.sent - self.counted);
            self.counted = self.sent;
        }
    }

    fn count_now_and_then(&mut self, now: Instant) {
        let (bytes, time) = Self::COUNT_EVERY;
        if self.sent - self.counted >= bytes || now.duration_since(self.last_counted) >= time {
            self.count_rest();
            self.last_counted = now;
        }
    }

    /// The most bytes that a DATA should carry.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// How many bytes to take from a source at once: whole DATA. Of a quick one several, since reading
    /// them one by one takes a seventh longer in all; of others no more than the queue takes, or the
    /// client would wait meanwhile.
    pub(crate) fn batch(&self, is_quick: bool) -> usize {
        let queue = usize::try_from(self.reply.max_bytes).unwrap_or(Self::MAX_BATCH);
        let most = if is_quick { Self::MAX_BATCH } else { queue.min(Self::MAX_BATCH) };
        // The type of a message takes the place of the bytes before it, which must be aligned.
        let aligned = self.chunk.is_multiple_of(MessageBuffer::ALIGNMENT);
        self.chunk * if aligned { (most / self.chunk).max(1) } else { 1 }
    }

    /// Sends a message: tries for a while, then waits, looking after the client now and then.
    ///
    /// Ids come round again, in seconds at best; reading a file may take as long. So after a pause
    /// the queue is looked at before anything is sent. Between two messages that follow each other
    /// sooner a queue can go, which the next one finds out, but not come again.
    pub(crate) fn send<'a>(&mut self, message: impl Into<Message<'a>>) -> Result<(), Undelivered> {
        let now = Instant::now();
        if now.duration_since(self.last_sent) >= Self::TICK {
            self.check_is_there()?;
        }
        self.last_sent = now;
        self.unread = None;
        self.count_now_and_then(now);
        self.deliver(message.into())
    }

    /// Tells a client that there is nothing new, once a second: by a DATA without bytes. Looks after the
    /// client meanwhile, as a wait for room would: one that does not read has stalled.
    pub(crate) fn keep_alive(&mut self) -> Result<(), Undelivered> {
        if self.last_sent.elapsed() < Self::TICK {
            return Ok(());
        }
        self.look_after_client()?;
        let now = Instant::now();
        self.last_sent = now;
        // Beside the lease.
        let status = self.reply.queue.status().ok().filter(|status| status.messages > 1);
        let Some(status) = status else {
            self.unread = None;
            return self.deliver((&MessageBuffer::with_text(Reply::DATA, &[])).into());
        };
        // Whoever took a message meanwhile reads, if slowly.
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
        let tried = self.patience.attempt(|| match queue.try_send(message) {
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
            signals::tick_every(Self::TICK).map_err(Undelivered::NoTimer)?;
            self.ticking = true;
        }
        let since = Instant::now();
        loop {
            match self.reply.queue.send(message) {
                Err(SendError::Interrupted) => {}
                outcome => return outcome.map_err(undelivered),
            }
            self.count_rest();
            self.look_after_client()?;
            if since.elapsed() >= self.stall_timeout {
                return self.send_at_last(message);
            }
        }
    }

    /// Whose time is up may have stood still all the while (SIGSTOP), and the client has read.
    fn send_at_last(&self, message: Message<'_>) -> Result<(), Undelivered> {
        match self.reply.queue.try_send(message) {
            Err(SendError::Full | SendError::Interrupted) => Err(Undelivered::Stalled),
            outcome => outcome.map_err(undelivered),
        }
    }

    fn check_is_there(&self) -> Result<(), Undelivered> {
        if self.reply.is_there() { Ok(()) } else { Err(Undelivered::Gone) }
    }

    /// Ends the wait for a client that is proven dead, and removes what it left.
    fn look_after_client(&self) -> Result<(), Undelivered> {
        self.check_is_there()?;
        let Some(lease) = self.reply.lease() else { return Ok(()) };
        match Observer::new().life_nearby(&lease.owner) {
            Life::Alive(_) => Ok(()),
            Life::Dead(proof) => {
                // The creator may; a server that the queue was handed to may as well, and may
                // others' queues too: by now the id could be one's of those.
                self.check_is_there()?;
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

fn chunk_for(reply: &ReplyTo) -> usize {
    let msgmax = QueueLimits::current().map_or(MAX_PLAIN_REPLY, |limits| limits.msgmax);
    let queue = usize::try_from(reply.max_bytes).unwrap_or(usize::MAX);
    match reply.dialect {
        Dialect::Plain => chunk(queue, msgmax.min(MAX_PLAIN_REPLY)),
        Dialect::Extended(_) => chunk(queue.saturating_sub(Lease::SIZE), msgmax.min(MAX_REPLY)),
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
