//! Clients that live through the whole test and do not go on: no reaper may take their queues for
//! orphans.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mqfs::wire::Lease;
use mqfs::{Client, Transfer};
use mqfs_kit::{Process, Running, find_lease, is_full, queues_of, seeded_noise, wait_for};
use nix::sys::signal::Signal;
use sysv_ipc::Queue;

use crate::report::Report;
use crate::site::{DEADLINE, Site, own_pid};

/// Clients in the middle of a transfer, whose output nobody reads before the end.
#[derive(Debug)]
pub struct Keepers {
    content: Vec<u8>,
    programs: Vec<Keeper>,
    /// One more transfer, which this process makes with the library.
    own: Transfer,
    own_queue: (Queue, Lease),
}

#[derive(Debug)]
struct Keeper {
    running: Running,
    process: Process,
    queue: (Queue, Lease),
    errors: PathBuf,
}

impl Keepers {
    /// The file that they fetch, and how many do.
    const FILE: &str = "kept";
    const COUNT: usize = 4;

    pub fn start(site: &Site, seed: u64, timeout: Duration) -> Result<Self> {
        let content = seeded_noise(seed, 2 << 20);
        site.put(Self::FILE, &content)?;
        let path = format!("/{}", Self::FILE);
        let builder = Client::builder().key(site.namespace.key).timeout(timeout).retries(100);
        let own = builder.build().open(Path::new(&path))?;
        let this = Process::with_pid(own_pid()).context("/proc")?;
        let own_queue = full_queue(this)?;
        let mut programs = Vec::new();
        for number in 0..Self::COUNT {
            let keeper = Keeper::start(site, number, &path, timeout)?;
            // Half of them are stopped, too; the others would go on if somebody read.
            if number % 2 == 0 {
                ensure!(keeper.process.freeze(), "a client ended that nobody reads");
            }
            programs.push(keeper);
        }
        Ok(Self { content, programs, own, own_queue })
    }

    pub fn pids(&self) -> Vec<i32> {
        self.programs.iter().map(|keeper| keeper.process.pid).collect()
    }

    pub fn holds(&self, queue: Queue) -> bool {
        let queues = self.programs.iter().map(|keeper| keeper.queue);
        queues.chain([self.own_queue]).any(|(kept, _)| kept == queue)
    }

    /// Checks that their queues are there, and lets the transfers go on to their end.
    pub fn finish(mut self, report: &mut Report) {
        let mut removed = usize::from(!is_there(self.own_queue));
        let mut copy = Vec::new();
        match self.own.read_to_end(&mut copy) {
            Ok(_) if copy == self.content => {}
            Ok(_) => report.wrong("WRONG BYTES: the library's transfer"),
            Err(error) => report.wrong(format!("the library's transfer: {error}")),
        }
        for keeper in self.programs {
            removed += usize::from(!is_there(keeper.queue));
            if let Err(wrong) = keeper.finish(&self.content) {
                report.wrong(format!("a client that did not go on until the end: {wrong}"));
            }
        }
        report.row("  of clients that did not go on until the end", Self::COUNT + 1);
        report.none("  of these, falsely removed", removed);
    }
}

impl Keeper {
    fn start(site: &Site, number: usize, path: &str, timeout: Duration) -> Result<Self> {
        let errors = site.errors().join(format!("kept-{number}"));
        let mut command = site.client(&errors)?;
        command.args(["--retries", "100", "--timeout", &format!("{}ms", timeout.as_millis())]);
        let running = Running::start(command.arg(path).stdout(Stdio::piped()));
        let process = Process::with_pid(running.pid()).context("/proc")?;
        Ok(Self { running, process, queue: full_queue(process)?, errors })
    }

    fn finish(self, content: &[u8]) -> Result<()> {
        self.process.signal(Signal::SIGCONT);
        let finished = self.running.finish();
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        ensure!(finished.status.success(), "{}: {said}", finished.status);
        let copy = finished.stdout;
        ensure!(copy == content, "WRONG BYTES: {} of {}", copy.len(), content.len());
        Ok(())
    }
}

/// The queue of a transfer that does not go on.
fn full_queue(owner: Process) -> Result<(Queue, Lease)> {
    let mut found = None;
    wait_for(DEADLINE, || {
        found = queues_of(owner).into_iter().find(|(queue, _)| is_full(*queue));
        found.is_some()
    });
    found.context("no transfer is under way")
}

fn is_there((queue, lease): (Queue, Lease)) -> bool {
    find_lease(queue) == Some(lease)
}
