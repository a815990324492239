//! What is to be seen under a key, at one moment.

use std::fs;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use sysv_ipc::Pid;

use crate::counters::{self, Lookup, Metrics, Snapshot};
use crate::escape::escape;
use crate::ownership::liveness;
use crate::ownership::server_lock::{self, ServerState};
use crate::reaper::{self, Finding};
use crate::wire::{REPLY_QUEUE_MODE, is_request_queue_mode};
use sysv_ipc::{Key, Queue, QueueLimits, QueueStatus, QueueUsage};

/// What was seen.
pub(super) struct Look {
    pub(super) key: Key,
    pub(super) time: SystemTime,
    pub(super) taken: Instant,
    pub(super) queue: Option<(Queue, QueueStatus)>,
    /// Of a queue that mqfs made.
    pub(super) server: Option<ServerState>,
    /// None: the queue is another program's.
    pub(super) reply_queues: Option<Vec<Finding>>,
    pub(super) usage: QueueUsage,
    pub(super) limits: QueueLimits,
    pub(super) figures: Figures,
}

/// The counters under a key, and whose they are.
pub(super) enum Figures {
    /// Of the server of the queue.
    Current(Box<Snapshot>),
    /// Of a server that does not serve any more.
    Dead(Box<Snapshot>, &'static str),
    /// None, or none to be trusted or understood.
    None(String),
}

impl Figures {
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Current(snapshot) | Self::Dead(snapshot, _) => Some(snapshot),
            Self::None(_) => None,
        }
    }
}

impl Look {
    /// Everything, with the reply queues.
    pub(super) fn now(key: Key) -> Result<Self> {
        let mut look = Self::without_reply_queues(key)?;
        if look.is_servers() {
            look.reply_queues = Some(reply_queues()?);
        }
        Ok(look)
    }

    pub(super) fn without_reply_queues(key: Key) -> Result<Self> {
        let queue = match Queue::open(key).and_then(|queue| Ok((queue, queue.status()?))) {
            Err(error) if error.is_gone() => None,
            found => Some(found?),
        };
        let server = queue
            .filter(|(_, status)| is_request_queue_mode(status.permissions.mode))
            .map(|(_, status)| server_lock::server_state(key, status.permissions.uid));
        Ok(Self {
            key,
            time: SystemTime::now(),
            taken: Instant::now(),
            queue,
            server,
            reply_queues: None,
            usage: QueueUsage::current()?,
            limits: QueueLimits::current()?,
            figures: figures(key, queue, server),
        })
    }

    /// Metrics for Prometheus.
    pub(super) fn exposition(&self) -> String {
        let queue = self.queue.as_ref().filter(|_| self.server.is_some());
        let metrics = Metrics {
            key: self.key,
            is_up: self.server == Some(ServerState::Running),
            counters: self.figures.snapshot(),
            request_queue: queue.map(|(_, status)| status),
            usage: self.usage,
            limits: self.limits,
        };
        metrics.to_string()
    }

    /// Whether the key is free or a server's, and not another program's.
    fn is_servers(&self) -> bool {
        self.queue.is_none() || self.server.is_some()
    }

    /// Whether what stands under the key is what a dead server left.
    pub(super) fn is_of_dead_server(&self) -> bool {
        self.server == Some(ServerState::Dead) || matches!(self.figures, Figures::Dead(..))
    }
}

fn reply_queues() -> Result<Vec<Finding>> {
    let mut findings = reaper::survey()?;
    findings.retain(|finding| {
        finding.status.permissions.key.is_private()
            && finding.status.permissions.mode == REPLY_QUEUE_MODE
    });
    Ok(findings)
}

/// A segment outlives its makers. So does a queue, but not the lock; and a queue under the key that is
/// another one than the figures name has another server.
fn figures(key: Key, queue: Option<(Queue, QueueStatus)>, server: Option<ServerState>) -> Figures {
    let figures = match counters::read(key, queue.map(|(_, status)| status.permissions.uid)) {
        Ok(Lookup::Found(figures)) => figures,
        Ok(Lookup::Absent) => return Figures::None("no server counts under this key".to_owned()),
        Ok(Lookup::NotTrusted(uid)) => {
            return Figures::None(format!("not trusted: the segment belongs to uid {uid}"));
        }
        Ok(Lookup::Unknown) => {
            return Figures::None("the segment under this key holds none known here".to_owned());
        }
        Err(error) => return Figures::None(error.to_string()),
    };
    match queue {
        None => Figures::Dead(figures, "there is no queue under the key"),
        Some((queue, _)) if figures.queue != Some(queue.id()) => {
            Figures::Dead(figures, "another queue stands under the key")
        }
        Some(_) if server == Some(ServerState::Dead) => {
            Figures::Dead(figures, "nobody holds the server lock")
        }
        Some(_) => Figures::Current(figures),
    }
}

/// What a process calls itself, which may be anything.
pub(super) fn name_of(pid: Pid) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    (!liveness::no_such_process(pid)).then(|| escape(&name).to_string())
}
