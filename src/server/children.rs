//! The children that are running: how many, for whom, and until when.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sysv_ipc::{Pid, Uid};

use super::admission::ReplyTo;
use super::child_death_notices::ChildDeathNotices;
use super::config::Config;
use super::request_handler::GAVE_UP;
use crate::counters::Writer;
use crate::sys::child_exits::{Ended, is_stopped, take_ended, wait_unless};
use crate::sys::kill;

/// What a child does.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// It answers this user's request there.
    Request(Uid, ReplyTo),
    /// It removes orphaned queues.
    Reaping,
}

/// The children that run, as far as the server knows. Keeps their counters up to date.
#[derive(Debug)]
pub(super) struct Children {
    running: HashMap<Pid, (Task, Instant)>,
    death_notices: ChildDeathNotices,
    /// How many died before their request was answered.
    died: u64,
    limit: usize,
    stall_timeout: Duration,
    counters: Rc<Writer>,
}

impl Children {
    /// How often they need attention.
    pub(super) const ROUND: Duration = Duration::from_secs(1);

    pub(super) fn new(config: &Config, counters: Rc<Writer>) -> Self {
        let limit = config.max_children();
        Self {
            running: HashMap::with_capacity(limit + 1),
            death_notices: ChildDeathNotices::default(),
            died: 0,
            limit,
            stall_timeout: config.stall_timeout,
            counters,
        }
    }

    /// Adds a child that answers a request.
    pub(super) fn started(&mut self, pid: Pid, caller: Uid, reply: ReplyTo) {
        self.running.insert(pid, (Task::Request(caller, reply), Instant::now()));
        self.count();
    }

    /// Adds the child that removes orphaned queues.
    pub(super) fn started_reaping(&mut self, pid: Pid) {
        self.running.insert(pid, (Task::Reaping, Instant::now()));
    }

    /// How many children answer requests of this user.
    pub(super) fn answering(&self, caller: Uid) -> usize {
        let for_caller = |task: &Task| matches!(task, Task::Request(uid, _) if *uid == caller);
        self.running.values().filter(|(task, _)| for_caller(task)).count()
    }

    /// Whether a child removes orphaned queues.
    pub(super) fn are_reaping(&self) -> bool {
        self.running.values().any(|(task, _)| matches!(task, Task::Reaping))
    }

    /// Whether the limit of children that answer requests is reached.
    pub(super) fn are_at_limit(&self) -> bool {
        self.answering_requests() >= self.limit
    }

    /// Whether something may happen to a child that no signal announces in time.
    pub(super) fn need_attention(&self) -> bool {
        !(self.running.is_empty() && self.death_notices.is_empty())
    }

    /// Forgets the children that ended, and tells the clients of those that failed.
    pub(super) fn reap_ended(&mut self) {
        let ended = take_ended();
        for child in &ended {
            // None: not our child. Process 1 of a pid namespace adopts the children of others.
            if let Some((task, _)) = self.running.remove(&child.pid) {
                self.note_end(child, task);
            }
        }
        if !ended.is_empty() {
            self.count();
        }
        self.death_notices.retry();
    }

    fn note_end(&mut self, child: &Ended, task: Task) {
        let pid = child.pid.as_raw();
        let died = match (child.status.code(), child.status.signal()) {
            (Some(0), _) => return,
            (Some(GAVE_UP), _) => false, // the child has logged and counted it
            (Some(code), _) => {
                tracing::error!(pid, code, "a child failed");
                true
            }
            (_, signal) => {
                tracing::warn!(pid, signal, "a child was killed");
                true
            }
        };
        if let Task::Request(caller, reply) = task {
            self.died += u64::from(died);
            self.death_notices.send(caller, reply);
        }
    }

    fn count(&self) {
        self.counters.set_children(self.answering_requests(), self.died);
    }

    fn answering_requests(&self) -> usize {
        self.running.len() - usize::from(self.are_reaping())
    }

    /// Waits until the number of children is below the limit, but at most one round.
    pub(super) fn wait_for_place(&mut self, is_stopping: impl Fn() -> bool) {
        self.kill_stopped();
        wait_unless(
            || {
                self.reap_ended();
                !self.are_at_limit() || is_stopping()
            },
            Some(Self::ROUND),
        );
    }

    /// Kills children that have been stopped for the stall timeout. They run as their callers, who
    /// may send them SIGSTOP: kill(2).
    fn kill_stopped(&self) {
        for (&pid, (_, started)) in &self.running {
            if started.elapsed() > self.stall_timeout && is_stopped(pid) {
                tracing::warn!(pid = pid.as_raw(), "ending a child that somebody stopped");
                let _ = kill(pid, Some(Signal::SIGKILL));
            }
        }
    }

    /// Waits until no child is left. Kills them after the timeout, or at once if it is urgent.
    pub(super) fn drain(&mut self, timeout: Duration, is_urgent: impl Fn() -> bool) {
        self.wait_for_all(timeout, &is_urgent);
        if self.running.is_empty() {
            return;
        }
        let children = self.running.len();
        tracing::warn!(children, "killing children: their time to finish is over");
        for &pid in self.running.keys() {
            let _ = kill(pid, Some(Signal::SIGKILL));
        }
        // A child that waits for a disk does not react to SIGKILL.
        self.wait_for_all(Self::ROUND, &|| false);
    }

    fn wait_for_all(&mut self, timeout: Duration, give_up: &impl Fn() -> bool) {
        let start = Instant::now();
        let mut finished = false;
        while !finished {
            let left = timeout.saturating_sub(start.elapsed());
            let is_finished = || {
                self.reap_ended();
                finished = self.running.is_empty() || left.is_zero() || give_up();
                finished
            };
            wait_unless(is_finished, Some(left));
        }
    }
}
