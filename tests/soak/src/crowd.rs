//! Very many clients at once, all of them in the middle of a transfer; then some stop and some die.
//!
//! The file is larger than a pipe and a window hold, and nobody reads the clients' output
//! until all transfers are under way. So all transfers are under way at once, whatever the timing.
//! Every second client fetches the file twice, in a session.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mqfs_kit::{Process, Running, find_lease, is_full, seeded_noise, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use sysv_ipc::{Queue, queues};

use crate::report::Report;
use crate::site::{DEADLINE, Site};
use crate::usage::Usage;

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

/// So large a file gets a window.
const FILE_SIZE: usize = 1 << 20;

/// In KiB: together with a pipe, far less than the file.
const WINDOW: &str = "384K";

#[derive(Debug)]
struct Client {
    running: Running,
    process: Process,
    /// How many times it fetches the file: more than once is a session.
    files: usize,
}

pub fn run(opts: &Opts) -> Result<Report> {
    let [clients, stopped, killed] = [opts.clients, opts.stopped, opts.killed].map(usize::from);
    ensure!(stopped + killed <= clients, "more stopped and killed than there are clients");
    let site = Site::new()?;
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    raise_descriptors(clients as u64 * 2 + 100)?;
    let content = seeded_noise(1, FILE_SIZE);
    site.put("file", &content)?;
    let most = (clients + 10).to_string();
    let limits = ["--max-children", &most, "--stall-timeout", "10m", "--window", WINDOW];
    let server = site.server(&[&["--quiet", "--reap-interval", "1h"], &limits[..]].concat());
    // The first request fills caches, which the crowd must not be blamed for.
    complete("alone", gather(&site, 1)?, &content, &mut report);
    let before = Usage::of(&server, &site, &mut report)?;

    let start = Instant::now();
    let mut others = gather(&site, clients)?;
    report.row("clients at once", format!("{clients}, after {:.1?}", start.elapsed()));
    let segments = site.namespace.left("shm");
    report.row("  segments of shared memory", segments);
    let enough = segments > clients || !site.namespace.is_own;
    report.check(enough, || "not every transfer has a window".to_owned());
    let stopped = others.split_off(others.len() - stopped);
    let mut killed = others.split_off(others.len() - killed);
    for client in &stopped {
        ensure!(client.process.freeze(), "a client ended before it was stopped");
    }
    killed.iter_mut().for_each(|client| client.running.kill());
    report.row("  killed on the way", killed.len());
    complete("  others", others, &content, &mut report);
    // The children of killed clients end by themselves. We kill those of the stopped clients, so
    // that these must fetch again.
    let stay = || server.children().len() <= stopped.len();
    report.check(wait_for(DEADLINE, stay), || "children of dead clients stay".to_owned());
    for child in server.process().children() {
        child.signal(Signal::SIGKILL);
    }
    site.reap()?;
    for client in &stopped {
        client.process.signal(Signal::SIGCONT);
    }
    let expected = stopped.len();
    let resumed = complete("  stopped on the way", stopped, &content, &mut report);
    report.check(resumed == expected, || format!("{resumed} of {expected} came in parts"));

    before.compare(Usage::of(&server, &site, &mut report)?, &mut report);
    server.stop();
    site.count_left(&mut report)?;
    Ok(report)
}

/// Reads what clients write until all have ended. Returns how many fetched a file in parts.
fn complete(who: &str, clients: Vec<Client>, content: &[u8], report: &mut Report) -> usize {
    let (count, start, mut resumed) = (clients.len(), Instant::now(), 0);
    for Client { running, files, .. } in clients {
        let ended = running.finish();
        let is_right = ended.stdout == content.repeat(files) && ended.status.success();
        report.check(is_right, || {
            format!("{who}: {}, or WRONG BYTES: {}", ended.status, ended.stderr)
        });
        resumed += usize::from(ended.stderr.contains(" parts, "));
    }
    report.row(who, format!("{count} ended within {:.1?}", start.elapsed()));
    resumed
}

/// Starts clients, and waits until each has filled its queue and cannot go on.
fn gather(site: &Site, count: usize) -> Result<Vec<Client>> {
    let start = |number: usize| -> Result<Client> {
        let (mut command, files) =
            (site.client(&site.folder("errors").join("file"))?, 1 + number % 2);
        command.args(["--verbose", "--timeout", "2m", "--retries", "100"]);
        let running = Running::piped(command.args(vec!["/file"; files]));
        let process = Process::with_pid(running.pid()).context("/proc")?;
        Ok(Client { running, process, files })
    };
    let clients = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    let asked = Queue::open(site.namespace.key)?.id();
    let stuck = |queue| {
        is_full(queue) && find_lease(queue).is_some_and(|lease| lease.request_queue == asked)
    };
    let under_way = || queues().into_iter().flatten().filter(|&(queue, _)| stuck(queue)).count();
    let all_wait = wait_for(DEADLINE * 4, || under_way() >= count);
    ensure!(all_wait, "only {} of {count} transfers are under way", under_way());
    Ok(clients)
}

/// Raises the limit on descriptors: two are needed for every client's output.
fn raise_descriptors(least: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    ensure!(least <= hard, "{least} descriptors are needed, {hard} are allowed (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(least), hard).context("setrlimit")
}
