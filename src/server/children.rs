//! The children under way: how many, until when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sys::kill;
use nix::sys::signal::Signal;
use sysv_ipc::{Pid, Uid};

use super::admission::reply_to::ReplyTo;
use super::child_death_notices::ChildDeathNotices;
use super::request_handler::GAVE_UP;
use crate::sys::child_exits::{is_stopped, take_ended, wait_unless};

/// What a child was forked for.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// To answer this user there.
    Request(Uid, ReplyTo),
    Housekeeping,
}

/// The children that were started and have not been seen to end.
#[derive(Debug)]
pub(crate) struct Children {
    running: HashMap<Pid, (Task, Instant)>,
    death_notices: ChildDeathNotices,
    /// How many ended before they were done.
    died: u64,
    bound: usize,
    stall_timeout: Duration,
}

impl Children {
    /// How often they are looked after.
    pub(crate) const ROUND: Duration = Duration::from_secs(1);

    pub(crate) fn new(bound: usize, stall_timeout: Duration) -> Self {
        let death_notices = ChildDeathNotices::default();
        let running = HashMap::with_capacity(bound + 1);
        Self { running, death_notices, died: 0, bound, stall_timeout }
    }

    pub(crate) fn started(&mut self, pid: Pid, caller: Uid, reply: ReplyTo) {
        self.running.insert(pid, (Task::Request(caller, reply), Instant::now()));
    }

    /// How many answer this user.
    pub(crate) fn answering(&self, caller: Uid) -> usize {
        let for_caller = |task: &Task| matches!(task, Task::Request(uid, _) if *uid == caller);
        self.running.values().filter(|(task, _)| for_caller(task)).count()
    }

    pub(crate) fn started_housekeeping(&mut self, pid: Pid) {
        self.running.insert(pid, (Task::Housekeeping, Instant::now()));
    }

    pub(crate) fn keeps_house(&self) -> bool {
        self.running.values().any(|(task, _)| matches!(task, Task::Housekeeping))
    }

    /// Whether something may happen to them that no signal tells of in time.
    pub(crate) fn need_looking_after(&self) -> bool {
        !(self.running.is_empty() && self.death_notices.is_empty())
    }

    /// Takes note of the children that ended, and tells the clients of those that did not end well.
    pub(crate) fn settle(&mut self) {
        for ended in take_ended() {
            let Some((task, _)) = self.running.remove(&ended.pid) else {
                continue; // or adopted, by a server that is process 1 of a pid namespace
            };
            let pid = ended.pid.as_raw();
            let died = match (ended.code(), ended.signal()) {
                (Some(0), _) => continue,
                (Some(GAVE_UP), _) => false, // it said so, and counted it
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
                self.death_notices.tell(caller, reply);
            }
        }
        self.death_notices.tell_rest();
    }

    /// Whether there are as many children as there may be.
    pub(crate) fn are_too_many(&self) -> bool {
        self.requests() >= self.bound
    }

    /// Waits for a round, or less: until there is room for a child, or the server is to stop.
    pub(crate) fn wait_for_room(&mut self, is_stopping: impl Fn() -> bool) {
        self.end_stopped();
        wait_unless(
            || {
                self.settle();
                !self.are_too_many() || is_stopping()
            },
            Some(Self::ROUND),
        );
    }

    /// Ends children that stand still for as long as none may wait. They run as their callers, who
    /// may send them SIGSTOP: kill(2).
    fn end_stopped(&self) {
        for (&pid, (_, started)) in &self.running {
            if started.elapsed() > self.stall_timeout && is_stopped(pid) {
                tracing::warn!(pid = pid.as_raw(), "ending a child that somebody stopped");
                let _ = kill(pid, Some(Signal::SIGKILL));
            }
        }
    }

    /// How many of those that answered requests ended before they were done.
    pub(crate) fn died(&self) -> u64 {
        self.died
    }

    pub(crate) fn requests(&self) -> usize {
        self.running.len() - usize::from(self.keeps_house())
    }

    /// Waits until every child has ended: for `timeout` of itself, then by force.
    pub(crate) fn drain(&mut self, timeout: Duration, is_urgent: impl Fn() -> bool) {
        self.wait_for_all(timeout, &is_urgent);
        if self.running.is_empty() {
            return;
        }
        tracing::warn!(
            children = self.running.len(),
            "ending children: the time to finish is over"
        );
        for &pid in self.running.keys() {
            let _ = kill(pid, Some(Signal::SIGKILL));
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
