//! Everything that `mqfs-stat` shows of a key, at one moment.

use std::fs;
use std::time::SystemTime;

use anyhow::Result;
use sysv_ipc::{Key, Pid, Queue, QueueLimits, QueueStatus, QueueUsage};

use crate::counters::{self, Lookup, Metrics, Snapshot};
use crate::escape::escape;
use crate::ownership::liveness;
use crate::ownership::server_state::ServerState;
use crate::reaper::{self, Finding};
use crate::wire::{REPLY_QUEUE_MODE, is_request_queue_mode};

/// The state of a key and of its IPC namespace.
pub(super) struct KeyState {
    pub(super) key: Key,
    pub(super) time: SystemTime,
    pub(super) queue: Option<(Queue, QueueStatus)>,
    /// None: there is no queue, or another program made it.
    pub(super) server: Option<ServerState>,
    /// None: they were not asked for, or the queue is another program's.
    pub(super) reply_queues: Option<Vec<Finding>>,
    pub(super) usage: QueueUsage,
    pub(super) limits: QueueLimits,
    pub(super) counters: ServerCounters,
}

/// The counters under a key, and whether they are those of a server that runs.
pub(super) enum ServerCounters {
    /// Those of the server of the queue.
    Current(Box<Snapshot>),
    /// Those of a server that is dead, and how that is known.
    Dead(Box<Snapshot>, &'static str),
    /// Why there are none.
    Unavailable(String),
}

impl ServerCounters {
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Current(snapshot) | Self::Dead(snapshot, _) => Some(snapshot),
            Self::Unavailable(_) => None,
        }
    }
}

impl KeyState {
    /// Reads the state; the reply queues only if wanted, since they take longest.
    pub(super) fn read(key: Key, with_reply_queues: bool) -> Result<Self> {
        let queue = match Queue::open(key).and_then(|queue| Ok((queue, queue.status()?))) {
            Err(error) if error.is_gone() => None,
            found => Some(found?),
        };
        let server = queue
            .filter(|(_, status)| is_request_queue_mode(status.permissions.mode))
            .map(|(_, status)| ServerState::of(key, status.permissions.uid));
        let is_another_programs = queue.is_some() && server.is_none();
        let wanted = with_reply_queues && !is_another_programs;
        Ok(Self {
            key,
            time: SystemTime::now(),
            queue,
            server,
            reply_queues: wanted.then(reply_queues).transpose()?,
            usage: QueueUsage::current()?,
            limits: QueueLimits::current()?,
            counters: server_counters(key, queue, server),
        })
    }

    /// Metrics for Prometheus.
    pub(super) fn metrics(&self) -> String {
        let queue = self.queue.as_ref().filter(|_| self.server.is_some());
        Metrics {
            key: self.key,
            is_up: self.server == Some(ServerState::Running),
            counters: self.counters.snapshot(),
            request_queue: queue.map(|(_, status)| status),
            usage: self.usage,
            limits: self.limits,
        }
        .to_string()
    }

    /// Whether a dead server left the objects under the key.
    pub(super) fn is_of_dead_server(&self) -> bool {
        self.server == Some(ServerState::Dead) || matches!(self.counters, ServerCounters::Dead(..))
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

/// A queue and a segment outlive their server, and the lock does not. So the counters are current
/// only if the queue is the one that they name, and nothing says that its server is dead.
fn server_counters(
    key: Key,
    queue: Option<(Queue, QueueStatus)>,
    server: Option<ServerState>,
) -> ServerCounters {
    let unavailable = |why: &str| ServerCounters::Unavailable(why.to_owned());
    let counters = match counters::read(key, queue.map(|(_, status)| status.permissions.uid)) {
        Ok(Lookup::Found(counters)) => counters,
        Ok(Lookup::Absent) => return unavailable("no server has counters under this key"),
        Ok(Lookup::NotTrusted(uid)) => {
            return unavailable(&format!("not trusted: the segment belongs to uid {uid}"));
        }
        Ok(Lookup::Unknown) => {
            return unavailable("the segment under this key holds no known counters");
        }
        Err(error) => return unavailable(&error.to_string()),
    };
    match queue {
        None => ServerCounters::Dead(counters, "there is no queue under the key"),
        Some((queue, _)) if counters.queue != Some(queue.id()) => {
            ServerCounters::Dead(counters, "another queue stands under the key")
        }
        Some(_) if server == Some(ServerState::Dead) => {
            ServerCounters::Dead(counters, "nobody holds the server lock")
        }
        Some(_) => ServerCounters::Current(counters),
    }
}

/// The name of a process that is alive, made safe to print: processes choose their names freely.
pub(super) fn process_name(pid: Pid) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    (!liveness::no_such_process(pid)).then(|| escape(&name).to_string())
}
