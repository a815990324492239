//! Everything that `mqfs-stat` shows of a key, at one moment.

use std::array;
use std::cmp::Reverse;
use std::fmt::{self, Display};
use std::fs;
use std::time::SystemTime;

use anyhow::Result;
use sysv_ipc::{Key, Pid, Queue, QueueId, QueueLimits, QueueStatus, QueueUsage};

use crate::counters::{self, Lookup, Snapshot};
use crate::escape::escape;
use crate::ownership::liveness;
use crate::ownership::server_state::ServerState;
use crate::reaper::{Finding, Policy, is_reply_queue, is_request_queue};

/// The growth in a second of each [`growing`] counter.
pub(super) type Rates = [(&'static str, f64); 8];

#[derive(Clone, Copy)]
pub(super) enum Target {
    Key(Key),
    Id(QueueId),
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "under key {key}"),
            Self::Id(id) => write!(f, "with id {id}"),
        }
    }
}

/// The state of a queue, of what stands under its key, and of its IPC namespace.
pub(super) struct KeyState {
    pub(super) target: Target,
    /// The queue's. [`Key::PRIVATE`]: it has none, or no queue has the id.
    pub(super) key: Key,
    pub(super) time: SystemTime,
    pub(super) queue: Option<(Queue, QueueStatus)>,
    /// None: there is no queue, or another program made it.
    pub(super) server: Option<ServerState>,
    /// None: they were not asked for, or the queue is another program's.
    pub(super) reply_queues: Option<Vec<Finding>>,
    pub(super) usage: QueueUsage,
    pub(super) limits: QueueLimits,
    pub(super) counters: Option<Box<Snapshot>>,
    /// Why there are no counters, or how it is known that they are a dead server's. None: they are
    /// those of the server of the queue.
    pub(super) counters_note: Option<String>,
    pub(super) rates: Option<Rates>,
}

impl KeyState {
    /// Reads the state; the reply queues only if wanted, since they take longest.
    pub(super) fn read(target: Target, with_reply_queues: bool) -> Result<Self> {
        let queue = match target {
            Target::Key(key) => Queue::open(key),
            Target::Id(id) => Ok(Queue::from_id(id)),
        };
        let queue = match queue.and_then(|queue| Ok((queue, queue.status()?))) {
            Err(error) if error.is_gone() => None,
            found => Some(found?),
        };
        let key = match (target, queue) {
            (Target::Key(key), _) => key,
            (Target::Id(_), queue) => queue.map_or(Key::PRIVATE, |(_, seen)| seen.permissions.key),
        };
        let server = queue
            .filter(|(_, seen)| is_request_queue(seen))
            .map(|(_, seen)| ServerState::of(key, seen.permissions.uid));
        let is_another_programs = key.is_private() || queue.is_some() && server.is_none();
        let wanted = with_reply_queues && !is_another_programs;
        let (counters, counters_note) = read_counters(key, queue, server);
        Ok(Self {
            target,
            key,
            time: SystemTime::now(),
            queue,
            server,
            reply_queues: wanted.then(reply_queues).transpose()?,
            usage: QueueUsage::current()?,
            limits: QueueLimits::current()?,
            counters,
            counters_note,
            rates: None,
        })
    }

    /// Adds the rates, if both states have counters of one server, and the clock was not set back.
    pub(super) fn compare_with(&mut self, before: &Self) {
        let passed = self.time.duration_since(before.time).unwrap_or_default().as_secs_f64();
        let counters = before.counters.as_deref().zip(self.counters.as_deref());
        let counters = counters.filter(|(then, now)| {
            passed > 0.0 && (then.server, then.started) == (now.server, now.started)
        });
        self.rates = counters.map(|(then, now)| {
            let (then, now) = (growing(then), growing(now));
            let rate = |count: u64, then: u64| count.saturating_sub(then) as f64 / passed;
            array::from_fn(|index| (now[index].0, rate(now[index].1, then[index].1)))
        });
    }

    /// Whether a dead server left the objects under the key.
    pub(super) fn is_of_dead_server(&self) -> bool {
        let is_a_dead_servers = self.counters.is_some() && self.counters_note.is_some();
        self.server == Some(ServerState::Dead) || is_a_dead_servers
    }
}

/// The counters that only grow, with their names in JSON.
pub(super) fn growing(counters: &Snapshot) -> [(&'static str, u64); 8] {
    [
        ("requests", counters.requests),
        ("questions", counters.questions),
        ("complete", counters.completed()),
        ("bytes_sent", counters.bytes_sent),
        ("clients_gone", counters.clients_gone),
        ("windows_failed", counters.windows_failed),
        ("failed", counters.all_failures()),
        ("refused", counters.all_refusals()),
    ]
}

/// Those that were used last come first.
fn reply_queues() -> Result<Vec<Finding>> {
    let mut findings = Policy::new().survey()?;
    findings.retain(|finding| is_reply_queue(&finding.status));
    findings.sort_by_key(|finding| Reverse(finding.last_used()));
    Ok(findings)
}

/// The counters and the note on them. A queue and a segment outlive their server, and the lock does
/// not. So the counters are current only if the queue is the one that they name, and nothing says
/// that its server is dead.
fn read_counters(
    key: Key,
    queue: Option<(Queue, QueueStatus)>,
    server: Option<ServerState>,
) -> (Option<Box<Snapshot>>, Option<String>) {
    let owner = queue.map(|(_, status)| status.permissions.uid);
    let counters = match counters::read(key, owner) {
        Ok(Lookup::Found(counters)) => Ok(counters),
        Ok(Lookup::Absent) => Err("no server has counters under this key".to_owned()),
        Ok(Lookup::NotTrusted(uid)) => {
            Err(format!("not trusted: the segment belongs to uid {uid}"))
        }
        Ok(Lookup::Unknown) => Err("the segment under this key holds no known counters".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let note = match (&counters, queue) {
        (Err(why), _) => why,
        (Ok(_), None) => "there is no queue under the key",
        (Ok(counters), Some((queue, _))) if counters.queue != Some(queue.id()) => {
            "another queue stands under the key"
        }
        (Ok(_), Some(_)) if server == Some(ServerState::Dead) => "nobody holds the server lock",
        (Ok(_), Some(_)) => return (counters.ok(), None),
    };
    let note = note.to_owned();
    (counters.ok(), Some(note))
}

/// The name of a process that is alive, made safe to print: processes choose their names freely.
pub(super) fn process_name(pid: Pid) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    (!liveness::no_such_process(pid)).then(|| escape(&name).to_string())
}
