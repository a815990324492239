//! Processes that are stopped for a while, and their queues, which must survive that.

use std::time::{Duration, Instant};

use mqfs::wire::Lease;
use nix::sys::signal::Signal;
use sysv_ipc::Queue;

use mqfs_kit::{Process, find_lease, queues_of};

/// A process that is stopped now, until when, and its queues.
type StoppedProcess = (Process, Instant, Vec<(Queue, Lease)>);

#[derive(Debug, Default)]
pub struct Stopped {
    processes: Vec<StoppedProcess>,
    /// Queues that were removed while their owner was stopped. A reaper took the owner for dead.
    pub falsely_removed: Vec<String>,
    /// How many queues were watched.
    pub watched: usize,
}

impl Stopped {
    /// Stops a process for a time. False if it ended before. The server may end an idle session and
    /// remove its queue, so of sessions only queues with messages are watched.
    pub fn stop(&mut self, process: Process, has_sessions: bool, lasts: Duration) -> bool {
        if self.processes.iter().any(|stopped| stopped.0 == process) || !process.freeze() {
            return false;
        }
        let mut queues = queues_of(process);
        let may_be_idle = |queue: Queue| queue.status().is_ok_and(|status| status.messages <= 1);
        queues.retain(|(queue, _)| !has_sessions || !may_be_idle(*queue));
        self.watched += queues.len();
        self.processes.push((process, Instant::now() + lasts, queues));
        true
    }

    /// Continues the processes that `which` chooses; it is told whose time is over.
    pub fn go_on(&mut self, which: impl Fn(Process, bool) -> bool) {
        let now = Instant::now();
        for (process, _, queues) in self.processes.extract_if(.., |it| which(it.0, it.1 <= now)) {
            for (queue, lease) in queues {
                // Look before it goes on: a dead process may rightly lose its queue.
                if find_lease(queue) != Some(lease) && process.lives() {
                    let (id, pid) = (queue.id(), process.pid);
                    let gone = format!("queue {id} of the stopped process {pid} was removed");
                    self.falsely_removed.push(gone);
                }
            }
            process.signal(Signal::SIGCONT);
        }
    }

    /// No longer watches a queue, which we remove ourselves.
    pub fn forget(&mut self, queue: Queue) {
        for (_, _, queues) in &mut self.processes {
            queues.retain(|(watched, _)| *watched != queue);
        }
    }
}
