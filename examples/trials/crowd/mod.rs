//! A great many clients at once, all of them in the midst of a transfer; then some stop and some die.
//!
//! Nobody reads what the clients write until all transfers are under way: a pipe and a queue hold
//! less than the file. So "at once" is not left to chance.

mod readers;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use sysv_ipc::{Queue, QueueStatus, queues};

use crate::support::{
    DEADLINE, Report, Server, Site, anonymous_kib, descriptors, lease_of, noise, wait_for,
    zombies_of,
};
use readers::{Client, read_all};

/// Serve very many clients at once, of which some stop and some are killed
#[derive(Debug, Args)]
pub struct Opts {
    /// How many clients
    #[arg(long, value_name = "N", default_value = "1000")]
    clients: u16,
    /// How many of them are stopped on the way, and go on at the end
    #[arg(long, value_name = "N", default_value = "200")]
    stopped: u16,
    /// How many others are killed with -9 on the way
    #[arg(long, value_name = "N", default_value = "200")]
    killed: u16,
}

/// More than a pipe and a queue can hold, together with a message on each side.
const FILE_SIZE: usize = 256 << 10;

/// What the server takes at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    children: usize,
    anonymous_kib: u64,
    descriptors: Option<usize>,
}

/// A crowd before one server.
#[derive(Debug)]
struct Crowd<'a> {
    site: &'a Site,
    server: &'a Server,
    content: &'a [u8],
    opts: &'a Opts,
}

pub fn run(opts: &Opts) -> Result<Report> {
    let (stopped, killed, clients) = (opts.stopped, opts.killed, opts.clients);
    ensure!(stopped + killed <= clients, "more stopped and killed than there are clients");
    let site = Site::new()?;
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    raise_descriptors(u64::from(clients) * 2 + 100)?;
    let content = noise(1, FILE_SIZE);
    site.put("file", &content)?;
    let most = (clients + 10).to_string();
    let mut server = site.server(&[
        "--quiet",
        "--max-children",
        &most,
        "--stall-timeout",
        "10m",
        "--reap-interval",
        "1h",
    ])?;
    let crowd = Crowd { site: &site, server: &server, content: &content, opts };
    // What a first request leaves in caches is none of the crowd's.
    let warm = crowd.gather(1)?;
    read_all(warm, &content, &mut report);
    let before = crowd.sight(&mut report)?;
    tell("the server before", before, &mut report);
    crowd.all_complete(&mut report)?;
    crowd.some_stop_and_some_die(&mut report)?;
    let after = crowd.sight(&mut report)?;
    tell("the server after", after, &mut report);
    compare(before, after, &mut report);
    report.none("zombies", zombies_of(server.pid()));
    site.reap()?;
    let left = site.namespace.left().len().saturating_sub(1);
    report.none("queues left, besides the server's", left);
    server.stop(DEADLINE)?;
    site.count_left(&mut report)?;
    Ok(report)
}

impl Crowd<'_> {
    fn all_complete(&self, report: &mut Report) -> Result<()> {
        let start = Instant::now();
        let clients = self.gather(usize::from(self.opts.clients))?;
        report.row("clients at once", clients.len());
        report.row("  all under way after", format!("{:.1?}", start.elapsed()));
        tell("  the server at the height", self.sight_now()?, report);
        let released = Instant::now();
        let completed = read_all(clients, self.content, report);
        report.row("  completed, and right", completed);
        report.row("  within", format!("{:.1?}", released.elapsed()));
        let all = usize::from(self.opts.clients);
        report.check(completed == all, || format!("{completed} of {all} completed"));
        Ok(())
    }

    fn some_stop_and_some_die(&self, report: &mut Report) -> Result<()> {
        self.server.settles();
        let mut others = self.gather(usize::from(self.opts.clients))?;
        report.row("clients at once, again", others.len());
        let stopped = others.split_off(others.len() - usize::from(self.opts.stopped));
        let mut killed = others.split_off(others.len() - usize::from(self.opts.killed));
        for client in &stopped {
            ensure!(client.process.freeze(), "a client ended before it was stopped");
        }
        killed.iter_mut().for_each(Client::kill);
        report.row("  stopped on the way", stopped.len());
        report.row("  killed on the way", killed.len());
        tell("  the server at the height", self.sight_now()?, report);
        let (expected, released) = (others.len(), Instant::now());
        let completed = read_all(others, self.content, report);
        report.row("  others completed, and right", completed);
        report.row("  within", format!("{:.1?}", released.elapsed()));
        report.check(completed == expected, || format!("{completed} of {expected} completed"));
        // The children of the dead find out by themselves; those of the stopped ones stay, and are
        // killed now, so that their clients must resume.
        let stay = || self.server.children().len() <= stopped.len();
        report.check(wait_for(DEADLINE, stay), || "children of dead clients stay".to_owned());
        for child in self.server.children() {
            child.signal(Signal::SIGKILL);
        }
        self.site.reap()?;
        for client in &stopped {
            client.process.signal(Signal::SIGCONT);
        }
        let said: Vec<_> = stopped.iter().map(|client| client.errors.clone()).collect();
        let (expected, released) = (stopped.len(), Instant::now());
        let completed = read_all(stopped, self.content, report);
        report.row("  stopped ones completed, and right", completed);
        report.row("  within", format!("{:.1?}", released.elapsed()));
        let resumed = said
            .iter()
            .filter(|said| fs::read_to_string(said).is_ok_and(|said| said.contains(" in 2 parts")));
        let resumed = resumed.count();
        report.row("  of these, resumed", resumed);
        report.check(completed == expected && resumed == expected, || {
            format!("of {expected} that were stopped {resumed} resumed, {completed} completed")
        });
        Ok(())
    }

    /// Starts clients, and waits until the transfer of each is under way and none goes on.
    fn gather(&self, count: usize) -> Result<Vec<Client>> {
        let start = |number: usize| {
            let errors = self.site.errors().join(number.to_string());
            Client::start(&mut self.site.client(&errors)?, errors)
        };
        let clients = (0..count).map(start).collect::<Result<Vec<_>>>()?;
        let asked = Queue::open(self.site.namespace.key)?.id();
        let full = |queue: Queue, status: &QueueStatus| {
            status.bytes + 8136 > status.max_bytes
                && lease_of(queue).is_some_and(|lease| lease.request_queue == asked)
        };
        let under_way = || {
            let all = queues().into_iter().flatten();
            all.filter(|(queue, status)| full(*queue, status)).count()
        };
        let all_wait = wait_for(DEADLINE * 4, || under_way() >= count);
        ensure!(all_wait, "only {} of {count} transfers are under way", under_way());
        Ok(clients)
    }

    fn sight_now(&self) -> Result<Sight> {
        let pid = self.server.pid();
        Ok(Sight {
            children: self.server.children().len(),
            anonymous_kib: anonymous_kib(pid).context("RssAnon in /proc/PID/status")?,
            descriptors: descriptors(pid),
        })
    }

    /// While nobody asks.
    fn sight(&self, report: &mut Report) -> Result<Sight> {
        report.check(self.server.settles(), || "children stay".to_owned());
        self.sight_now()
    }
}

fn tell(name: &str, sight: Sight, report: &mut Report) {
    let Sight { children, anonymous_kib, descriptors } = sight;
    let descriptors =
        descriptors.map_or_else(String::new, |count| format!(", {count} descriptors"));
    report.row(name, format!("{children} children, {anonymous_kib} KiB RssAnon{descriptors}"));
}

fn compare(before: Sight, after: Sight, report: &mut Report) {
    /// Its book of children grows with the crowd, and stays.
    const TOLERANCE_KIB: u64 = 256;
    report.check(after.descriptors <= before.descriptors, || "descriptors leaked".to_owned());
    let most = before.anonymous_kib + TOLERANCE_KIB;
    report.check(after.anonymous_kib <= most, || "the server's memory grew".to_owned());
}

/// One for every client's output.
fn raise_descriptors(least: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    ensure!(least <= hard, "{least} descriptors are needed, {hard} are allowed (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(least), hard).context("setrlimit")
}

/// How long a crowd may take to be read.
const READING: Duration = Duration::from_secs(120);
