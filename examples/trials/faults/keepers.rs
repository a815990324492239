//! Clients that live through the whole trial and stand still on the way: nobody may take their queues
//! for orphans.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mqfs::wire::Lease;
use mqfs::{Client, Transfer};
use nix::sys::signal::Signal;
use sysv_ipc::Queue;

use crate::support::{
    DEADLINE, Process, Report, Site, end_of, lease_of, noise, queues_of, wait_for,
};

/// Clients in the midst of a transfer, whose output nobody reads before the end.
#[derive(Debug)]
pub struct Keepers {
    content: Vec<u8>,
    programs: Vec<Keeper>,
    /// And one in this very process, by the library.
    own: Transfer,
    own_queue: (Queue, Lease),
}

#[derive(Debug)]
struct Keeper {
    child: Child,
    process: Process,
    queue: (Queue, Lease),
    errors: PathBuf,
}

impl Keepers {
    /// The file that they fetch, and how many do.
    const FILE: &str = "kept";
    const COUNT: usize = 4;

    pub fn start(site: &Site, seed: u64, timeout: Duration) -> Result<Self> {
        let content = noise(seed, 2 << 20);
        site.put(Self::FILE, &content)?;
        let path = format!("/{}", Self::FILE);
        let builder = Client::builder().key(site.namespace.key).timeout(timeout).retries(100);
        let own = builder.connect()?.open(Path::new(&path))?;
        let this = Process::with_pid(std::process::id() as i32).context("/proc")?;
        let own_queue = full_queue(this)?;
        let mut programs = Vec::new();
        for number in 0..Self::COUNT {
            let keeper = Keeper::start(site, number, &path, timeout)?;
            // Half of them would go on if only somebody read; the others cannot move at all.
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

    /// Their queues must be there, and the transfers go on to their end.
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
                report.wrong(format!("a client that stood still all the time: {wrong}"));
            }
        }
        report.row("  of clients that stood still all the time", Self::COUNT + 1);
        report.none("  of these, falsely removed", removed);
    }
}

impl Keeper {
    fn start(site: &Site, number: usize, path: &str, timeout: Duration) -> Result<Self> {
        let errors = site.errors().join(format!("kept-{number}"));
        let mut command = site.client(&errors)?;
        command.args(["--retries", "100", "--timeout", &format!("{}ms", timeout.as_millis())]);
        let child = command.arg(path).stdout(Stdio::piped()).spawn().context("mqfs-client")?;
        let process = Process::with_pid(child.id() as i32).context("/proc")?;
        Ok(Self { child, process, queue: full_queue(process)?, errors })
    }

    fn finish(mut self, content: &[u8]) -> Result<()> {
        self.process.signal(Signal::SIGCONT);
        let mut stdout = self.child.stdout.take().context("its output")?;
        let reader = thread::spawn(move || {
            let mut copy = Vec::new();
            stdout.read_to_end(&mut copy).map(|_| copy)
        });
        let Some(status) = end_of(&mut self.child, DEADLINE) else {
            self.process.signal(Signal::SIGKILL);
            end_of(&mut self.child, DEADLINE);
            anyhow::bail!("it hung");
        };
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        ensure!(status.success(), "{status}: {said}");
        let copy = reader.join().ok().context("a panic")??;
        ensure!(copy == content, "WRONG BYTES: {} of {}", copy.len(), content.len());
        Ok(())
    }
}

/// The queue of a transfer that does not go on.
fn full_queue(owner: Process) -> Result<(Queue, Lease)> {
    let mut found = None;
    let is_full = |queue: Queue| queue.status().is_ok_and(|s| s.bytes + 8136 > s.max_bytes);
    wait_for(DEADLINE, || {
        found = queues_of(owner).into_iter().find(|(queue, _)| is_full(*queue));
        found.is_some()
    });
    found.context("no transfer is under way")
}

fn is_there((queue, lease): (Queue, Lease)) -> bool {
    lease_of(queue) == Some(lease)
}
