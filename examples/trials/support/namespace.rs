//! The IPC namespace that a trial runs in, and what of it is its own.

use std::collections::HashSet;
use std::fs;

use anyhow::Result;
use mqfs::ownership::lease::{self, Head};
use mqfs::reaper::{self, Finding};
use mqfs::wire::Lease;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use sysv_ipc::{Key, Queue, QueueId, queues};

use super::Process;

/// Where the queues of a trial are: in a namespace of its own, or among others'.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// What is here is ours.
    pub is_own: bool,
    pub key: Key,
    /// The queues of others, that were here before.
    found: HashSet<QueueId>,
    semaphores_found: usize,
    segments_found: usize,
}

impl Namespace {
    /// Makes one as root. Before any thread is started: those that are there stay where they are.
    pub fn enter() -> Result<Self> {
        let is_own = geteuid().is_root() && unshare(CloneFlags::CLONE_NEWIPC).is_ok();
        Ok(Self {
            is_own,
            key: Key::new(0x5100_0000 | (std::process::id() as i32 & 0xff_ffff)),
            found: queues()?.map(|(queue, _)| queue.id()).collect(),
            semaphores_found: listed("sem"),
            segments_found: listed("shm"),
        })
    }

    pub fn describe(&self) -> String {
        match self.is_own {
            true => "an IPC namespace of its own".to_owned(),
            false => format!("not root: the common IPC namespace, key {}", self.key),
        }
    }

    /// Our queues that are left. In a common namespace none of a living process, which may be
    /// somebody else's.
    pub fn left(&self) -> Vec<Queue> {
        let all = reaper::survey().unwrap_or_default().into_iter();
        all.filter(|finding| self.is_own || self.is_ours(finding))
            .map(|finding| finding.queue)
            .collect()
    }

    fn is_ours(&self, finding: &Finding) -> bool {
        let new = !self.found.contains(&finding.queue.id())
            && finding.status.permissions.cuid.as_raw() == geteuid().as_raw();
        new && (finding.verdict.is_orphan() || finding.status.permissions.key == self.key)
    }

    /// Semaphores other than ours, in a namespace of our own; the lock is ours.
    pub fn semaphores_left(&self) -> usize {
        if self.is_own { listed("sem").saturating_sub(self.semaphores_found) } else { 0 }
    }

    /// Segments of shared memory, likewise.
    pub fn segments_left(&self) -> usize {
        if self.is_own { listed("shm").saturating_sub(self.segments_found) } else { 0 }
    }
}

/// How many objects of this kind there are: sysvipc(7), proc(5).
fn listed(kind: &str) -> usize {
    let list = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
    list.lines().count().saturating_sub(1)
}

/// The queues with the lease of this process.
pub fn queues_of(process: Process) -> Vec<(Queue, Lease)> {
    let all =
        queues().into_iter().flatten().filter(|(_, status)| status.permissions.key.is_private());
    all.filter_map(|(queue, _)| Some((queue, lease_of(queue)?)))
        .filter(|(_, lease)| process.owns(lease))
        .collect()
}

pub fn lease_of(queue: Queue) -> Option<Lease> {
    match lease::peek(queue) {
        Head::Lease(lease) => Some(lease),
        _ => None,
    }
}
