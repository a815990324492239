//! The IPC namespace that a soak test runs in, and which objects in it belong to the test.

use std::collections::HashSet;

use anyhow::Result;
use mqfs::reaper::{Finding, Policy};
use mqfs_kit::{enter_own_namespace, listed};
use nix::unistd::geteuid;
use sysv_ipc::{Key, Queue, QueueId, queues};

#[derive(Debug, Clone)]
pub struct Namespace {
    /// Whether everything in it is ours.
    pub is_own: bool,
    pub key: Key,
    /// The queues that were there before.
    found: HashSet<QueueId>,
}

impl Namespace {
    /// Makes a namespace, as root. Call it before any thread starts: threads stay where they are.
    pub fn enter() -> Result<Self> {
        Ok(Self {
            is_own: enter_own_namespace(),
            key: Key::new(0x5100_0000 | (std::process::id() as i32 & 0xff_ffff)),
            found: queues()?.map(|(queue, _)| queue.id()).collect(),
        })
    }

    pub fn describe(&self) -> String {
        match self.is_own {
            true => "an IPC namespace of its own".to_owned(),
            false => format!("not root: the common IPC namespace, key {}", self.key),
        }
    }

    /// Our queues that are left. In the common namespace a living process's queue may belong to
    /// others, so only orphans and the request queue count.
    pub fn queues_left(&self) -> Vec<Queue> {
        let all = Policy::new().survey().unwrap_or_default().into_iter();
        let ours = all.filter(|finding| self.is_own || self.is_ours(finding));
        ours.map(|finding| finding.queue).collect()
    }

    fn is_ours(&self, finding: &Finding) -> bool {
        let new = !self.found.contains(&finding.queue.id())
            && finding.status.permissions.cuid.as_raw() == geteuid().as_raw();
        new && (finding.verdict.is_orphan() || finding.status.permissions.key == self.key)
    }

    /// How many objects of a kind ("sem", "shm") are left, in a namespace of our own.
    pub fn left(&self, kind: &str) -> usize {
        if self.is_own { listed(kind) } else { 0 }
    }
}
