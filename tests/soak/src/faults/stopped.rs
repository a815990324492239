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

    /// Stops a process for a time. False if it ended before.
    pub fn stop(&mut self, process: Process, lasts: Duration) -> bool {
        if self.holds(process) || !process.freeze() {
            return false;
        }
        let (since, queues) = (Instant::now(), queues_of(process));
        self.watched += queues.len();
        self.processes.push(StoppedProcess { process, since, until: since + lasts, queues });
        true
    }

    /// Continues the processes whose time is up. Returns how long each was stopped.
    pub fn continue_due(&mut self, now: Instant) -> Vec<(Process, Duration)> {
        let (due, rest) = self.processes.drain(..).partition(|stopped| stopped.until <= now);
        self.processes = rest;
        due.into_iter().map(|stopped| self.go_on(stopped)).collect()
    }

    /// Continues a process early, before another fault hits it.
    pub fn release(&mut self, process: Process) {
        if let Some(at) = self.processes.iter().position(|stopped| stopped.process == process) {
            let stopped = self.processes.swap_remove(at);
            self.go_on(stopped);
        }
    }

    pub fn release_all(&mut self) -> Vec<(Process, Duration)> {
        let all: Vec<_> = self.processes.drain(..).collect();
        all.into_iter().map(|stopped| self.go_on(stopped)).collect()
    }

    /// No longer watches a queue, which we remove ourselves.
    pub fn forget(&mut self, queue: Queue) {
        for stopped in &mut self.processes {
            stopped.queues.retain(|(watched, _)| *watched != queue);
        }
    }

    fn go_on(&mut self, stopped: StoppedProcess) -> (Process, Duration) {
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
