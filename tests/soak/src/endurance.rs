//! Very many requests to one server, and as many questions in sessions: for a small file, and now
//! and then for one that takes a window. Afterwards the server must use as much as before.

use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use mqfs::{Client, ClientBuilder};
use mqfs_kit::{Server, descriptors, listed, number, seeded_noise, zombies_of};

use crate::report::Report;
use crate::site::{KEY, Site};

/// Send very many small requests to one server, and ask as much in sessions
#[derive(Debug, Args)]
pub struct Opts {
    /// How many requests, and how many questions in sessions
    #[arg(long, value_name = "N", default_value = "1000000")]
    requests: usize,
}

/// The sizes of the files, which are named by their place here.
const SIZES: [usize; 2] = [100, 1 << 20];

/// One of so many requests is for the large file.
const LARGE: usize = 500;

const WORKERS: usize = 8;

pub fn run(opts: &Opts, site: &Site, report: &mut Report) -> Result<()> {
    /// So many requests fill the caches of the allocator and the server.
    const WARM_UP: usize = 10_000;
    let contents = SIZES.map(|size| seeded_noise(1, size));
    for (name, content) in contents.iter().enumerate() {
        fs::write(site.folder("root").join(name.to_string()), content)?;
    }
    // Quiet: a line for each request would measure the disk.
    let server = site.server(&["--quiet", "--reap-interval", "10s"]);
    let client = Client::builder().key(KEY).timeout(Duration::from_secs(30));
    let fetch = |count, report: &mut Report| {
        for (what, sessions) in [("requests", false), ("questions in sessions", true)] {
            let start = Instant::now();
            fetch_all(client.sessions(sessions), count, &contents, report);
            report.row(what, format!("{count} in {:.1?}", start.elapsed()));
        }
    };
    fetch(WARM_UP.min(opts.requests.div_ceil(5)), report);
    let before = usage(&server, report)?;
    fetch(opts.requests, report);
    for ((name, before, tolerance), (_, after, _)) in
        before.into_iter().zip(usage(&server, report)?)
    {
        let found = format!("{before} before, {after} after");
        report.row(format!("the server's {name}"), &found);
        report.check(after <= before + tolerance, || format!("{name} grew: {found}"));
    }
    server.stop();
    site.count_left(report);
    Ok(())
}

/// Fetches from several threads: half of them share a client, and the others have their own.
fn fetch_all(builder: ClientBuilder, requests: usize, contents: &[Vec<u8>], report: &mut Report) {
    let left = AtomicUsize::new(requests);
    let next = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    let shared = builder.build();
    let work = |number: usize| {
        let client = if number.is_multiple_of(2) { &builder.build() } else { &shared };
        while let Ok(left) = next() {
            let name = usize::from(left % LARGE == 1);
            let mut bytes = Vec::with_capacity(SIZES[name]);
            client.open(format!("/{name}"))?.read_to_end(&mut bytes)?;
            ensure!(bytes == contents[name], "WRONG BYTES");
        }
        Ok(())
    };
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS).map(|number| scope.spawn(move || work(number))).collect();
        for worker in workers {
            if let Err(error) = worker.join().expect("no worker panics") {
                report.wrong(format!("a request failed: {error:#}"));
            }
        }
    });
}

/// What a server uses once no child is left: how much of what, and how much more is no leak.
fn usage(server: &Server, report: &mut Report) -> Result<[(&'static str, u64, u64); 6]> {
    /// A heap may grow so much.
    const HEAP_KIB: u64 = 256;
    report.check(server.settles(), || "children stay".to_owned());
    let pid = server.pid();
    let kib = |name| number(pid, "status", name).context("/proc/PID/status");
    Ok([
        ("zombies", zombies_of(pid) as u64, 0),
        ("descriptors", descriptors(pid).context("/proc/PID/fd")? as u64, 0),
        ("queues, with its own", listed("msg") as u64, 0),
        ("segments", listed("shm") as u64, 0),
        ("RssAnon, KiB", kib("RssAnon")?, HEAP_KIB),
        ("VmSize, KiB", kib("VmSize")?, HEAP_KIB),
    ])
}
