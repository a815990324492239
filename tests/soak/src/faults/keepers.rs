//! Clients that live through the whole test and do not go on, because nobody reads their output: no
//! reaper may take their queues for orphans.

use anyhow::{Context, Result, ensure};
use mqfs::wire::Lease;
use mqfs_kit::{find_lease, is_full, queues_of, seeded_noise, wait_for};
use nix::sys::signal::Signal;
use sysv_ipc::Queue;

use crate::readers::{Client, read_all};
use crate::report::Report;
use crate::site::{DEADLINE, Site};

#[derive(Debug)]
pub struct Keepers {
    content: Vec<u8>,
    clients: Vec<Client>,
    queues: Vec<(Queue, Lease)>,
}

impl Keepers {
    const COUNT: usize = 4;

    pub fn start(site: &Site, seed: u64) -> Result<Self> {
        let content = seeded_noise(seed, 2 << 20);
        site.put("kept", &content)?;
        let (mut clients, mut queues) = (Vec::new(), Vec::new());
        for number in 0..Self::COUNT {
            let client = Client::start(site, &format!("kept-{number}"), "/kept", 1 + number / 2)?;
            let mut found = None;
            wait_for(DEADLINE, || {
                let mut queues = queues_of(client.process).into_iter();
                found = queues.find(|(queue, _)| is_full(*queue));
                found.is_some()
            });
            queues.push(found.context("no transfer is under way")?);
            // Half of them are stopped, too; the others would go on if somebody read.
            if number % 2 == 0 {
                ensure!(client.process.freeze(), "a client ended that nobody reads");
            }
            clients.push(client);
        }
        Ok(Self { content, clients, queues })
    }

    pub fn pids(&self) -> Vec<i32> {
        self.clients.iter().map(|client| client.process.pid).collect()
    }

    pub fn holds(&self, queue: Queue) -> bool {
        self.queues.iter().any(|(kept, _)| *kept == queue)
    }

    /// Checks that their queues are there, and lets the transfers go on to their end.
    pub fn finish(self, report: &mut Report) {
        let is_gone = |(queue, lease): &(Queue, Lease)| find_lease(*queue) != Some(*lease);
        let removed = self.queues.iter().filter(|kept| is_gone(kept)).count();
        for client in &self.clients {
            client.process.signal(Signal::SIGCONT);
        }
        let (completed, _) = read_all(self.clients, &self.content, report);
        report.check(completed == Self::COUNT, || "a client that was kept failed".to_owned());
        report.row("  of clients that did not go on until the end", Self::COUNT);
        report.none("  of these, falsely removed", removed);
    }
}
