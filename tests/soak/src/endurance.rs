//! Very many requests to one server, and as many questions in sessions: for a small file, and now
//! and then for one that takes a window. Afterwards the server must use as much as before.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use mqfs::{Client, ClientBuilder};
use mqfs_kit::seeded_noise;

use crate::report::Report;
use crate::site::Site;
use crate::usage::Usage;

/// Send very many small requests to one server, and ask as much in sessions
#[derive(Debug, Args)]
pub struct Opts {
    /// How many requests, and how many questions in sessions
    #[arg(long, value_name = "N", default_value = "1000000")]
    requests: usize,
    /// How many threads send them, by the library
    #[arg(long, value_name = "N", default_value = "8")]
    workers: usize,
}

/// The sizes of the files, which are named by their place here.
const SIZES: [usize; 2] = [100, 1 << 20];

/// One of so many requests is for the large file.
const LARGE: usize = 500;

pub fn run(opts: &Opts) -> Result<Report> {
    /// So many requests fill the caches of the allocator and the server.
    const WARM_UP: usize = 10_000;
    let site = Site::new()?;
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    let contents = SIZES.map(|size| seeded_noise(1, size));
    for (name, content) in contents.iter().enumerate() {
        site.put(&name.to_string(), content)?;
    }
    // Quiet: a line for each request would measure the disk.
    let server = site.server(&["--quiet", "--reap-interval", "10s"]);
    let client = Client::builder().key(site.namespace.key).timeout(Duration::from_secs(30));
    let fetch = |count, sessions, report: &mut Report| {
        let start = Instant::now();
        fetch_all(client.sessions(sessions), count, opts.workers, &contents, report);
        start.elapsed()
    };
    let warm_up = WARM_UP.min(opts.requests.div_ceil(5));
    fetch(warm_up, false, &mut report);
    fetch(warm_up, true, &mut report);
    let before = Usage::of(&server, &site, &mut report)?;
    report.row("workers", opts.workers);
    for (what, sessions) in [("requests", false), ("questions in sessions", true)] {
        let time = fetch(opts.requests, sessions, &mut report);
        let rate = opts.requests as f64 / time.as_secs_f64();
        report.row(what, format!("{} in {time:.1?}, {rate:.0}/s", opts.requests));
    }
    before.compare(Usage::of(&server, &site, &mut report)?, &mut report);
    server.stop();
    site.count_left(&mut report)?;
    Ok(report)
}

/// Fetches from several threads: half of them share a client, and the others have their own.
fn fetch_all(
    builder: ClientBuilder,
    requests: usize,
    workers: usize,
    contents: &[Vec<u8>],
    report: &mut Report,
) {
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
            (0..workers.max(1)).map(|number| scope.spawn(move || work(number))).collect();
        for worker in workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => report.wrong(format!("a request failed: {error:#}")),
                Err(_) => report.wrong("a worker panicked"),
            }
        }
    });
}
