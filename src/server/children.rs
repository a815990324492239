//! The children under way: how many, until when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::process::children::{is_stopped, take_ended, wait_unless};

/// What a child was forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// To answer this user.
    Request(Uid),
    Housekeeping,
}

/// The children that were started and have not been seen to end.
#[derive(Debug)]
pub(super) struct Children {
    running: HashMap<Pid, (Task, Instant)>,
    bound: usize,
    stall_timeout: Duration,
}

impl Children {
    /// How often a full house is looked through.
    const ROUND: Duration = Duration::from_secs(1);

    pub(super) fn new(bound: usize, stall_timeout: Duration) -> Self {
        Self { running: HashMap::with_capacity(bound + 1), bound, stall_timeout }
    }

    pub(super) fn started(&mut self, pid: Pid, caller: Uid) {
        self.running.insert(pid, (Task::Request(caller), Instant::now()));
    }

    /// How many answer this user.
    pub(super) fn answering(&self, caller: Uid) -> usize {
        self.running.values().filter(|&&(task, _)| task == Task::Request(caller)).count()
    }

    pub(super) fn started_housekeeping(&mut self, pid: Pid) {
        self.running.insert(pid, (Task::Housekeeping, Instant::now()));
    }

    pub(super) fn keeps_house(&self) -> bool {
        self.running.values().any(|&(task, _)| task == Task::Housekeeping)
    }

    /// Takes note of the children that ended.
    pub(super) fn settle(&mut self) {
        for ended in take_ended() {
            if self.running.remove(&ended.pid).is_none() {
                continue; // adopted, by a server that is process 1 of a pid namespace
            }
            let pid = ended.pid.as_raw();
            match (ended.code(), ended.signal()) {
                (Some(0), _) => {}
                (Some(code), _) => tracing::error!(pid, code, "a child failed"),
                (_, signal) => tracing::warn!(pid, signal, "a child was killed"),
            }
        }
    }

    /// Waits while there are as many children as there may be, unless the server is to stop. Whether
    /// it had to wait.
    pub(super) fn wait_for_room(&mut self, is_stopping: impl Fn() -> bool) -> bool {
        if self.requests() < self.bound {
            return false;
        }
        let mut room = false;
        while !room {
            self.end_stopped();
            wait_unless(
                || {
                    self.settle();
                    room = self.requests() < self.bound || is_stopping();
                    room
                },
                Some(Self::ROUND),
            );
        }
        true
    }

    /// Ends children that stand still for as long as none may wait. They run as their callers, who
    /// may send them SIGSTOP: kill(2).
    fn end_stopped(&self) {
        for (&pid, (_, started)) in &self.running {
            if started.elapsed() > self.stall_timeout && is_stopped(pid) {
                tracing::warn!(pid = pid.as_raw(), "ending a child that somebody stopped");
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }

    fn requests(&self) -> usize {
        self.running.len() - usize::from(self.keeps_house())
    }

    /// Waits until every child has ended: for `timeout` of itself, then by force.
    pub(super) fn drain(&mut self, timeout: Duration, is_urgent: impl Fn() -> bool) {
        self.wait_for_all(timeout, &is_urgent);
        if self.running.is_empty() {
            return;
        }
        tracing::warn!(
            children = self.running.len(),
            "ending children: the time to finish is over"
        );
        for &pid in self.running.keys() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        // SIGKILL is certain, but what waits for a disk waits on.
        self.wait_for_all(Self::ROUND, &|| false);
    }

    fn wait_for_all(&mut self, timeout: Duration, give_up: &impl Fn() -> bool) {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let mut finished = false;
            wait_unless(
                || {
                    self.settle();
                    finished = self.running.is_empty() || left.is_zero() || give_up();
                    finished
                },
                Some(left),
            );
            if finished {
                return;
            }
        }
    }
}
