//! Very many clients at once, all of them in the middle of a transfer; then some stop and some die.
//!
//! The file is larger than a pipe and a queue hold together, and nobody reads the clients' output
//! until all transfers are under way. So all transfers are under way at once, whatever the timing.

mod readers;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use mqfs_kit::{
    Server, descriptors, find_lease, is_full, number, seeded_noise, wait_for, zombies_of,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use sysv_ipc::{Queue, queues};

use crate::report::Report;
use crate::site::{DEADLINE, Site};
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

/// More than a pipe and a queue hold, together with a message on each side.
const FILE_SIZE: usize = 256 << 10;

/// What the server uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
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
    let content = seeded_noise(1, FILE_SIZE);
    site.put("file", &content)?;
    let most = (clients + 10).to_string();
    let server = site.server(&[
        "--quiet",
        "--max-children",
        &most,
        "--stall-timeout",
        "10m",
        "--reap-interval",
        "1h",
    ]);
    let crowd = Crowd { site: &site, server: &server, content: &content, opts };
    // The first request fills caches, which the crowd must not be blamed for.
    let warm = crowd.gather(1)?;
    read_all(warm, &content, &mut report);
    let before = crowd.idle_usage(&mut report)?;
    tell("the server before", before, &mut report);
    crowd.all_complete(&mut report)?;
    crowd.some_stop_and_some_die(&mut report)?;
    let after = crowd.idle_usage(&mut report)?;
    tell("the server after", after, &mut report);
    compare(before, after, &mut report);
    report.none("zombies", zombies_of(server.pid()));
    site.reap()?;
    let left = site.namespace.queues_left().len().saturating_sub(1);
    report.none("queues left, besides the server's", left);
    server.stop();
    site.count_left(&mut report)?;
    Ok(report)
}

impl Crowd<'_> {
    fn all_complete(&self, report: &mut Report) -> Result<()> {
        let start = Instant::now();
        let clients = self.gather(usize::from(self.opts.clients))?;
        report.row("clients at once", clients.len());
        report.row("  all under way after", format!("{:.1?}", start.elapsed()));
        tell("  the server at the height", self.usage_now()?, report);
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
        tell("  the server at the height", self.usage_now()?, report);
        let (expected, released) = (others.len(), Instant::now());
        let completed = read_all(others, self.content, report);
        report.row("  others completed, and right", completed);
        report.row("  within", format!("{:.1?}", released.elapsed()));
        report.check(completed == expected, || format!("{completed} of {expected} completed"));
        // The children of killed clients end by themselves. We kill those of the stopped clients,
        // so that these must resume.
        let stay = || self.server.children().len() <= stopped.len();
        report.check(wait_for(DEADLINE, stay), || "children of dead clients stay".to_owned());
        for child in self.server.process().children() {
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

    /// Starts clients, and waits until each has filled its queue and cannot go on.
    fn gather(&self, count: usize) -> Result<Vec<Client>> {
        let start = |number: usize| {
            let errors = self.site.errors().join(number.to_string());
            Client::start(&mut self.site.client(&errors)?, errors)
        };
        let clients = (0..count).map(start).collect::<Result<Vec<_>>>()?;
        let asked = Queue::open(self.site.namespace.key)?.id();
        let stuck = |queue| {
            is_full(queue) && find_lease(queue).is_some_and(|lease| lease.request_queue == asked)
        };
        let under_way = || {
            let all = queues().into_iter().flatten();
            all.filter(|&(queue, _)| stuck(queue)).count()
        };
        let all_wait = wait_for(DEADLINE * 4, || under_way() >= count);
        ensure!(all_wait, "only {} of {count} transfers are under way", under_way());
        Ok(clients)
    }

    fn usage_now(&self) -> Result<Usage> {
        let pid = self.server.pid();
        Ok(Usage {
            children: self.server.children().len(),
            anonymous_kib: number(pid, "status", "RssAnon")
                .context("RssAnon in /proc/PID/status")?,
            descriptors: descriptors(pid),
        })
    }

    /// Once no request is under way.
    fn idle_usage(&self, report: &mut Report) -> Result<Usage> {
        report.check(self.server.settles(), || "children stay".to_owned());
        self.usage_now()
    }
}

fn tell(name: &str, usage: Usage, report: &mut Report) {
    let Usage { children, anonymous_kib, descriptors } = usage;
    let descriptors =
        descriptors.map_or_else(String::new, |count| format!(", {count} descriptors"));
    report.row(name, format!("{children} children, {anonymous_kib} KiB RssAnon{descriptors}"));
}

fn compare(before: Usage, after: Usage, report: &mut Report) {
    /// Its table of children grows with the crowd, and keeps its size.
    const TOLERANCE_KIB: u64 = 256;
    report.check(after.descriptors <= before.descriptors, || "descriptors leaked".to_owned());
    let most = before.anonymous_kib + TOLERANCE_KIB;
    report.check(after.anonymous_kib <= most, || "the server's memory grew".to_owned());
}

/// Raises the limit on descriptors: one is needed for every client's output.
fn raise_descriptors(least: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    ensure!(least <= hard, "{least} descriptors are needed, {hard} are allowed (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(least), hard).context("setrlimit")
}

/// How long it may take to read from all clients.
const READING: Duration = Duration::from_secs(120);
