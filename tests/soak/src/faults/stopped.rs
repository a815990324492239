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
    until: Instant,
    queues: Vec<(Queue, Lease)>,
}

impl Stopped {
    /// Stops a process for a time. False if it ended before. The server may end an idle session and
    /// remove its queue, so of sessions only queues with messages are watched.
    pub fn stop(&mut self, process: Process, has_sessions: bool, lasts: Duration) -> bool {
        let is_stopped = self.processes.iter().any(|stopped| stopped.process == process);
        if is_stopped || !process.freeze() {
            return false;
        }
        let mut queues = queues_of(process);
        let may_be_idle = |queue: Queue| queue.status().is_ok_and(|status| status.messages <= 1);
        queues.retain(|(queue, _)| !has_sessions || !may_be_idle(*queue));
        self.watched += queues.len();
        self.processes.push(StoppedProcess { process, until: Instant::now() + lasts, queues });
        true
    }

    /// Continues the processes that `which` chooses; it is told whose time is over.
    pub fn go_on(&mut self, which: impl Fn(Process, bool) -> bool) {
        let now = Instant::now();
        let is_chosen = |stopped: &mut StoppedProcess| which(stopped.process, stopped.until <= now);
        for StoppedProcess { process, queues, .. } in self.processes.extract_if(.., is_chosen) {
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
        for stopped in &mut self.processes {
            stopped.queues.retain(|(watched, _)| *watched != queue);
        }
    }
}
