//! Large transfers whose servers are killed on the way, each with all its children.
//!
//! The client asks the next server for the file again, compares its beginning with what it has, and
//! goes on behind that. It does so for a single file, for one of several, and within a tree.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mqfs_kit::{Process, Running, Server, number, write_noise};
use nix::sys::signal::Signal;

use crate::report::Report;
use crate::site::{DEADLINE, Site};

/// Kill the server under large transfers, again and again
#[derive(Debug, Args)]
pub struct Opts {
    /// How large the file is, in MiB
    #[arg(long, value_name = "MIB", default_value = "1024")]
    size: u64,
    /// How often each server is killed with -9, with all its children, and started again
    #[arg(long, value_name = "N", default_value = "5")]
    kills: u64,
}

/// The large file is between small ones.
const FILES: [&str; 3] = ["before", "file", "later"];

/// What is fetched: a tree, or these files.
const WAYS: [(&str, &[&str]); 3] =
    [("one file", &["file"]), ("several files", &FILES), (A_TREE, &FILES)];

const A_TREE: &str = "a tree";

pub fn run(opts: &Opts) -> Result<Report> {
    let site = Site::new()?;
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    report.row("size", format!("{} MiB", opts.size));
    let tree = site.folder("root").join("tree");
    fs::create_dir(&tree)?;
    for name in FILES {
        write_noise(&tree.join(name), if name == "file" { opts.size << 20 } else { 1000 })?;
    }
    let mut server = start_server(&site);
    for (what, names) in WAYS {
        server = fetch(&site, opts, server, what, names, &mut report)?;
        report.check(server.settles(), || "children stay".to_owned());
    }
    server.stop();
    site.count_left(&mut report)?;
    Ok(report)
}

/// A server that runs no reaper meanwhile.
fn start_server(site: &Site) -> Server {
    site.server(&["--reap-interval", "1h"])
}

/// Fetches once. Returns the last server.
fn fetch(
    site: &Site,
    opts: &Opts,
    mut server: Server,
    what: &str,
    names: &[&str],
    report: &mut Report,
) -> Result<Server> {
    let (copies, errors) = (site.folder("copies").join(what), site.folder("errors").join(what));
    fs::create_dir(&copies)?;
    let start = Instant::now();
    let mut command = site.client(&errors)?;
    command.args(["--verbose", "-C"]).arg(&copies).stdout(Stdio::null());
    match what {
        A_TREE => command.args(["--recursive", "/tree"]),
        _ => command.args(names.iter().map(|name| format!("/tree/{name}"))),
    };
    let mut running = Running::start(&mut command);
    let client = Process::with_pid(running.pid()).context("/proc")?;
    for kill in 1..=opts.kills {
        stop_behind(client, (opts.size << 20) * kill / (opts.kills + 1))?;
        server.leave_key();
        server.kill_with_children();
        server = start_server(site);
        client.signal(Signal::SIGCONT);
    }
    let status = running.wait();
    let said = fs::read_to_string(&errors)?;
    let parts = format!(" in {} parts", opts.kills + 1);
    let is_in_parts = what == A_TREE || said.contains(&parts); // of a tree, it does not say
    report.check(status.success() && said.contains("verified") && is_in_parts, || {
        format!("{what}: {status}, or not{parts}, or not verified: {said}")
    });
    let folder = if what == A_TREE { copies.join("tree") } else { copies };
    for name in names {
        let files = [site.folder("root").join("tree").join(name), folder.join(name)];
        let same = Command::new("cmp").args(files).status().context("cmp")?.success();
        report.check(same, || format!("WRONG BYTES: {what}: {name}"));
    }
    let kills = opts.kills;
    report.row(what, format!("right after {kills} killed servers, {:.1?}", start.elapsed()));
    Ok(server)
}

/// Stops a client once it has so many bytes. It runs in short steps, so that it cannot reach the
/// end before we look.
fn stop_behind(client: Process, bytes: u64) -> Result<()> {
    const STEP: Duration = Duration::from_micros(500);
    let start = Instant::now();
    loop {
        client.signal(Signal::SIGCONT);
        thread::sleep(STEP);
        if !client.freeze() {
            bail!("the client ended before its server was killed: give it a larger --size");
        }
        // It writes nothing but files, and a line for each.
        let position = number(client.pid, "io", "wchar").context("/proc/PID/io")?;
        if position > bytes {
            return Ok(());
        }
        ensure!(start.elapsed() < DEADLINE * 4, "the client is still at {position}");
    }
}
