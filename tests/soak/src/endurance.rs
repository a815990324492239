//! Very many small requests to one server, which must use as much afterwards as before.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use mqfs::Client;
use mqfs_kit::{Server, descriptors, number, seeded_noise, zombies_of};
use sysv_ipc::Key;

use crate::report::Report;
use crate::site::Site;

/// Send very many small requests to one server
#[derive(Debug, Args)]
pub struct Opts {
    /// How many requests
    #[arg(long, value_name = "N", default_value = "1000000")]
    requests: usize,
    /// How many threads send them, by the library
    #[arg(long, value_name = "N", default_value = "8")]
    workers: usize,
}

/// What a server uses while it is idle.
#[derive(Debug, Clone, Copy)]
struct Usage {
    children: usize,
    zombies: usize,
    descriptors: Option<usize>,
    queues: usize,
    anonymous_kib: u64,
    virtual_kib: u64,
}

/// A heap may grow so much without a leak.
const TOLERANCE_KIB: u64 = 64;

const PATH: &str = "/small";

pub fn run(opts: &Opts) -> Result<Report> {
    /// So many requests fill the caches of the allocator and the server.
    const WARM_UP: usize = 10_000;
    let site = Site::new()?;
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    let content = seeded_noise(1, 100);
    site.put(PATH.trim_start_matches('/'), &content)?;
    // Quiet: a line for each request would measure the disk.
    let server = site.server(&["--quiet", "--reap-interval", "10s"]);
    let key = site.namespace.key;
    let warm_up = WARM_UP.min(opts.requests.div_ceil(5));
    report.row("requests to warm up", warm_up);
    fetch_all(key, warm_up, opts.workers, &content, &mut report);
    let before = Usage::of(&server, &site, &mut report)?;
    let start = Instant::now();
    fetch_all(key, opts.requests, opts.workers, &content, &mut report);
    let time = start.elapsed();
    let after = Usage::of(&server, &site, &mut report)?;
    report.row("requests", opts.requests);
    report.row("workers", opts.workers);
    report.row("time", format!("{time:.1?}"));
    report.row("requests/s", format!("{:.0}", opts.requests as f64 / time.as_secs_f64()));
    compare(before, after, &mut report);
    server.stop();
    site.count_left(&mut report)?;
    Ok(report)
}

impl Usage {
    fn of(server: &Server, site: &Site, report: &mut Report) -> Result<Self> {
        report.check(server.settles(), || "children stay".to_owned());
        let pid = server.pid();
        Ok(Self {
            children: server.children().len(),
            zombies: zombies_of(pid),
            descriptors: descriptors(pid),
            queues: site.namespace.queues_left().len(),
            anonymous_kib: number(pid, "status", "RssAnon")
                .context("RssAnon in /proc/PID/status")?,
            virtual_kib: number(pid, "status", "VmSize").context("VmSize in /proc/PID/status")?,
        })
    }
}

fn compare(before: Usage, after: Usage, report: &mut Report) {
    let number = |count: Option<usize>| match count {
        Some(count) => count.to_string(),
        None => "only root may look".to_owned(),
    };
    let mut row = |name: &str, before: String, after: String, holds: bool| {
        report.check(holds, || format!("{name} grew: {before} before, {after} after"));
        report.row(name, format!("{before} before, {after} after"));
    };
    for (name, before, after) in [
        ("children", Some(before.children), Some(after.children)),
        ("zombies", Some(before.zombies), Some(after.zombies)),
        ("descriptors of the server", before.descriptors, after.descriptors),
        ("queues, with the server's own", Some(before.queues), Some(after.queues)),
    ] {
        row(name, number(before), number(after), after <= before);
    }
    for (name, before, after) in [
        ("RssAnon of the server, KiB", before.anonymous_kib, after.anonymous_kib),
        ("VmSize of the server, KiB", before.virtual_kib, after.virtual_kib),
    ] {
        let holds = after <= before + TOLERANCE_KIB;
        row(name, before.to_string(), after.to_string(), holds);
    }
}

/// Sends the requests from several threads, each with a client of its own.
fn fetch_all(key: Key, requests: usize, workers: usize, content: &[u8], report: &mut Report) {
    let left = AtomicUsize::new(requests);
    let next = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    let work = || {
        let client = Client::builder().key(key).timeout(Duration::from_secs(30)).build();
        while next().is_ok() {
            let mut bytes = Vec::with_capacity(content.len());
            client.open(PATH)?.read_to_end(&mut bytes)?;
            anyhow::ensure!(bytes == content, "WRONG BYTES");
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => report.wrong(format!("a request failed: {error:#}")),
                Err(_) => report.wrong("a worker panicked"),
            }
        }
    });
}
