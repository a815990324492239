//! Sends messages to a client that may read slowly, stop, die, or remove its queue.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use sysv_ipc::{Message, MessageBuffer, QueueSettings, SendError};

use crate::counters::Writer;
use crate::ownership::liveness::{Dead, Life, Observer};
use crate::server::admission::{Admitted, ReplyTo};
use crate::sys::{AdaptiveSpin, Moment, signals};
use crate::wire::{Lease, MAX_PLAIN_REPLY, MAX_REPLY};

pub(crate) struct Outbox<'a> {
    pub(crate) reply: ReplyTo,
    pub(crate) stall_timeout: Duration,
    in_session: bool,
    /// The most bytes for one DATA.
    pub(super) chunk: usize,
    spin: AdaptiveSpin,
    ticking: bool,
    /// When the last message was sent, or the request received.
    pub(super) last_sent: Moment,
    /// How many bytes of files were sent, and how many of them the counters do not include yet.
    pub(crate) sent: u64,
    uncounted: u64,
    last_counted: Moment,
    pub(super) counters: &'a Writer,
}

/// Why a message did not reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undelivered {
    #[error("client gone")]
    Gone,
    /// The client died; its queue is removed.
    #[error("client dead: {0}")]
    Dead(Dead),
    #[error("client stalled")]
    Stalled,
    #[error("setitimer: {0}")]
    NoTimer(Errno),
    #[error(transparent)]
    Os(sysv_ipc::Error),
}

impl<'a> Outbox<'a> {
    /// How often a child that waits checks whether its client is alive.
    pub(crate) const TICK: Duration = Duration::from_secs(1);

    /// An answer of so few bytes takes mostly page faults, so `now` avoids those of the vDSO.
    const SMALL: u64 = 16 << 10;

    pub(super) const PAUSE: Duration = Duration::from_millis(20);

    /// The counters show a transfer while it runs, but counting costs almost nothing.
    const COUNT_BYTES: u64 = 1 << 20;
    const COUNT_INTERVAL: Duration = Duration::from_millis(200);

    pub(crate) fn new(
        request: &Admitted<'_>,
        stall_timeout: Duration,
        counters: &'a Writer,
        received: Moment,
    ) -> Self {
        let chunk = chunk_for(&request.reply);
        Self {
            reply: request.reply,
            stall_timeout,
            in_session: request.session,
            // Pieces of the stream begin at multiples of it, and must be aligned.
            chunk: aligned(chunk),
            spin: AdaptiveSpin::default(),
            ticking: false,
            last_sent: received,
            sent: 0,
            uncounted: 0,
            last_counted: received,
            counters,
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let is_warm = self.in_session || self.sent > Self::SMALL;
        if is_warm { Moment::now() } else { Moment::now_by_syscall() }
    }

    pub(super) fn count_bytes(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.uncounted += bytes as u64;
    }

    pub(crate) fn count_sent(&mut self) {
        self.counters.sent(std::mem::take(&mut self.uncounted));
    }

    /// Lowers the capacity of the queue to this many bytes, if it is larger. False: it cannot.
    pub(super) fn lower_capacity(&mut self, most: usize) -> bool {
        if self.reply.max_bytes <= most {
            return true;
        }
        let (queue, max_bytes) = (self.reply.queue, most as u64);
        let settings =
            queue.status().map(|status| QueueSettings { max_bytes, ..status.settings() });
        if settings.and_then(|settings| queue.set(&settings)).is_err() {
            return false;
        }
        self.reply.max_bytes = most;
        self.chunk = self.chunk.min(aligned(chunk_for(&self.reply)));
        true
    }

    /// Notes that memory or segments are used up. The first time, logs it.
    pub(super) fn note_no_window(&self, error: &sysv_ipc::Error) {
        if self.counters.no_window() == 0 {
            tracing::warn!(%error, "no shared memory: large files go through the queues, slower");
        }
    }

    /// Sends a message: tries for a short time, then waits, and checks on the client every second.
    /// After a pause, it checks first: the kernel reuses a queue's id after two seconds or more.
    pub(crate) fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Undelivered> {
        let now = self.now();
        if now.since(self.last_sent) >= Self::PAUSE {
            self.check_queue()?;
        }
        self.last_sent = now;
        if self.uncounted >= Self::COUNT_BYTES
            || now.since(self.last_counted) >= Self::COUNT_INTERVAL
        {
            self.count_sent();
            self.last_counted = now;
        }
        self.deliver(message.into())
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
        self.start_ticking()?;
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

    pub(crate) fn start_ticking(&mut self) -> Result<(), Undelivered> {
        if !self.ticking {
            signals::tick(Self::TICK).map_err(Undelivered::NoTimer)?;
            self.ticking = true;
        }
        Ok(())
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

fn aligned(chunk: usize) -> usize {
    (chunk / MessageBuffer::ALIGNMENT).max(1) * MessageBuffer::ALIGNMENT
}

fn chunk_for(reply: &ReplyTo) -> usize {
    let (queue, msgmax) = (reply.max_bytes, reply.msgmax);
    match reply.cookie {
        None => chunk(queue, msgmax.min(MAX_PLAIN_REPLY)),
        Some(_) => chunk(queue.saturating_sub(Lease::SIZE), msgmax.min(MAX_REPLY)),
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
