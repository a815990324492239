//! Very many requests to one server, and as many questions in sessions: for a small file, and now
//! and then for one that takes a window. Afterwards the server must use as much as before.

use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use mqfs::Client;
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

pub fn run(opts: &Opts, site: &Site, report: &mut Report) -> Result<()> {
    // The files are named by their place here.
    let contents = [100, 1 << 20].map(|size| seeded_noise(1, size));
    for (name, content) in contents.iter().enumerate() {
        fs::write(site.folder("root").join(name.to_string()), content)?;
    }
    // Quiet: a line for each request would measure the disk.
    let server = site.server(&["--quiet", "--reap-interval", "10s"]);
    // So many requests fill the caches of the allocator and the server.
    fetch_all(opts.requests.div_ceil(5).min(10_000), &contents, report);
    let before = usage(&server, report)?;
    fetch_all(opts.requests, &contents, report);
    let after = usage(&server, report)?;
    for ((name, before, tolerance), (_, after, _)) in before.into_iter().zip(after) {
        let found = format!("{before} before, {after} after");
        report.row(format!("the server's {name}"), &found);
        report.check(after <= before + tolerance, || format!("{name} grew: {found}"));
    }
    server.stop();
    site.count_left(report);
    Ok(())
}

/// Fetches from eight threads: half of them share a client, and the others have their own.
fn fetch_all(requests: usize, contents: &[Vec<u8>], report: &mut Report) {
    for (what, sessions) in [("requests", false), ("questions in sessions", true)] {
        let (start, left) = (Instant::now(), &AtomicUsize::new(requests));
        let builder = Client::builder().key(KEY).timeout(Duration::from_secs(30));
        let builder = builder.sessions(sessions);
        let shared = builder.build();
        let work = &|client: Client| {
            while let Ok(left) = left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)) {
                let name = usize::from(left % 500 == 1);
                let mut bytes = Vec::new();
                client.open(format!("/{name}"))?.read_to_end(&mut bytes)?;
                ensure!(bytes == contents[name], "WRONG BYTES");
            }
            Ok(())
        };
        let clients = [(); 4].map(|()| [shared.clone(), builder.build()]).into_iter().flatten();
        thread::scope(|scope| {
            let workers: Vec<_> = clients.map(|client| scope.spawn(move || work(client))).collect();
            for worker in workers {
                if let Err(error) = worker.join().expect("no worker panics") {
                    report.wrong(format!("a request failed: {error:#}"));
                }
            }
        });
        report.row(what, format!("{requests} in {:.1?}", start.elapsed()));
    }
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
