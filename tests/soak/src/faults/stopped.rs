//! Processes that are stopped for a while, and their queues, which must survive that.

use std::time::{Duration, Instant};

use mqfs::wire::Lease;
use nix::sys::signal::Signal;
use sysv_ipc::Queue;

use mqfs_kit::{Process, find_lease, queues_of};

/// The processes that are stopped now.
#[derive(Debug, Default)]
pub struct Stopped {
    processes: Vec<StoppedProcess>,
    /// Queues that were removed while their owner was stopped. A reaper took the owner for dead.
    pub falsely_removed: Vec<String>,
    /// How many queues were watched.
    pub watched: usize,
}

#[derive(Debug)]
struct StoppedProcess {
    process: Process,
    since: Instant,
    until: Instant,
    queues: Vec<(Queue, Lease)>,
}

impl Stopped {
    pub fn holds(&self, process: Process) -> bool {
        self.processes.iter().any(|stopped| stopped.process == process)
    }

    /// Stops a process for a time. False if it ended before. The server may end an idle session and
    /// remove its queue, so of sessions only queues with messages are watched.
    pub fn stop(&mut self, process: Process, has_sessions: bool, lasts: Duration) -> bool {
        if self.holds(process) || !process.freeze() {
            return false;
        }
        let (since, mut queues) = (Instant::now(), queues_of(process));
        let may_be_idle = |queue: Queue| queue.status().is_ok_and(|status| status.messages <= 1);
        queues.retain(|(queue, _)| !has_sessions || !may_be_idle(*queue));
        self.watched += queues.len();
        self.processes.push(StoppedProcess { process, since, until: since + lasts, queues });
        true
    }

    /// Continues the processes that `which` chooses; it is told whose time is over. Returns for how
    /// long each was stopped.
    pub fn go_on(&mut self, which: impl Fn(Process, bool) -> bool) -> Vec<(Process, Duration)> {
        let now = Instant::now();
        let (chosen, rest) = self
            .processes
            .drain(..)
            .partition(|stopped| which(stopped.process, stopped.until <= now));
        self.processes = rest;
        chosen.into_iter().map(|stopped| self.continue_one(stopped)).collect()
    }

    /// No longer watches a queue, which we remove ourselves.
    pub fn forget(&mut self, queue: Queue) {
        for stopped in &mut self.processes {
            stopped.queues.retain(|(watched, _)| *watched != queue);
        }
    }

    fn continue_one(&mut self, stopped: StoppedProcess) -> (Process, Duration) {
        let StoppedProcess { process, since, queues, .. } = stopped;
        // Look before it goes on: a dead process may rightly lose its queue.
        if process.lives() {
            for (queue, lease) in queues {
                if find_lease(queue) != Some(lease) && process.lives() {
                    let (id, pid) = (queue.id(), process.pid);
                    let gone = format!("queue {id} of the stopped process {pid} was removed");
                    self.falsely_removed.push(gone);
                }
            }
        }
        process.signal(Signal::SIGCONT);
        (process, since.elapsed())
    }
}
