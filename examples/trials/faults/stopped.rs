//! Processes that were stopped and are to go on, and what must still be there then.

use std::time::{Duration, Instant};

use mqfs::wire::Lease;
use nix::sys::signal::Signal;
use sysv_ipc::Queue;

use crate::support::{Process, lease_of, queues_of};

/// The processes that stand still.
#[derive(Debug, Default)]
pub struct Stopped {
    standing: Vec<Standing>,
    /// Queues of theirs that were removed meanwhile. They live, and cannot have done it themselves:
    /// whoever did took them for dead.
    pub falsely_removed: Vec<String>,
    /// How many queues were looked after.
    pub watched: usize,
}

#[derive(Debug)]
struct Standing {
    process: Process,
    since: Instant,
    until: Instant,
    queues: Vec<(Queue, Lease)>,
}

impl Stopped {
    pub fn holds(&self, process: Process) -> bool {
        self.standing.iter().any(|standing| standing.process == process)
    }

    /// Stops a process for a time. False if it ended before.
    pub fn stop(&mut self, process: Process, lasts: Duration) -> bool {
        if self.holds(process) || !process.freeze() {
            return false;
        }
        let (since, queues) = (Instant::now(), queues_of(process));
        self.watched += queues.len();
        self.standing.push(Standing { process, since, until: since + lasts, queues });
        true
    }

    /// Lets those go on whose time is up; each with how long it stood.
    pub fn let_go(&mut self, now: Instant) -> Vec<(Process, Duration)> {
        let (due, rest) = self.standing.drain(..).partition(|standing| standing.until <= now);
        self.standing = rest;
        due.into_iter().map(|standing| self.go_on(standing)).collect()
    }

    /// Lets a process go on, if it stands, so that something else may happen to it.
    pub fn release(&mut self, process: Process) {
        if let Some(at) = self.standing.iter().position(|standing| standing.process == process) {
            let standing = self.standing.swap_remove(at);
            self.go_on(standing);
        }
    }

    pub fn release_all(&mut self) -> Vec<(Process, Duration)> {
        let all: Vec<_> = self.standing.drain(..).collect();
        all.into_iter().map(|standing| self.go_on(standing)).collect()
    }

    /// Expects no more that the queue is there: it was removed by ourselves.
    pub fn forget(&mut self, queue: Queue) {
        for standing in &mut self.standing {
            standing.queues.retain(|(watched, _)| *watched != queue);
        }
    }

    fn go_on(&mut self, standing: Standing) -> (Process, Duration) {
        let Standing { process, since, queues, .. } = standing;
        // Looked at before it goes on, and only if it could: what killed it is not known here.
        if process.lives() {
            for (queue, lease) in queues {
                if lease_of(queue) != Some(lease) && process.lives() {
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
