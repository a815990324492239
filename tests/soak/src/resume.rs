//! One large transfer whose servers are killed on the way, each with all its children.
//!
//! A client asks the next server for what follows its last byte, after it has read what a dead
//! child left in the queue. So nothing is sent twice but what was in flight: what a queue holds
//! (`msg_qbytes`), and what a child reads at once. Killed servers log nothing, so this test stops
//! the client before each kill and takes from /proc/PID/io what the children have read. The last
//! child logs what it sent. The sum, less the size, is an upper bound of what was sent twice.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mqfs_kit::{Process, Running, Server, number, wait_for, write_noise};
use nix::sys::signal::Signal;
use sysv_ipc::QueueLimits;

use crate::report::Report;
use crate::site::{DEADLINE, Site};

/// The most that a child reads before it sends it, in bytes.
const READ_AT_ONCE: u64 = 128 << 10;

/// Kill the server under one large transfer, again and again
#[derive(Debug, Args)]
pub struct Opts {
    /// How much is fetched: 64M, 1G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    size: u64,
    /// How often the server is killed with -9, with all its children, and started again
    #[arg(long, value_name = "N", default_value = "5")]
    kills: u64,
}

/// How much the killed children had read, and how much the client had then.
#[derive(Debug, Default)]
struct Tally {
    /// None where we may not look.
    read: Option<Vec<u64>>,
    positions: Vec<u64>,
}

#[derive(Debug)]
struct Transfer {
    running: Running,
    process: Process,
}

pub fn run(opts: &Opts) -> Result<Report> {
    let site = Site::new()?;
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    let original = site.root().join("file");
    write_noise(&original, opts.size)?;
    let copy = site.copies().join("copy");
    let errors = site.errors().join("client");
    let mut server = start_server(&site);
    let start = Instant::now();
    let mut transfer = Transfer::start(&site, &copy, &errors)?;
    let mut tally = Tally { read: Some(Vec::new()), positions: Vec::new() };
    for kill in 0..opts.kills {
        tally.stop_at_next(&transfer, opts, kill)?;
        tally.look_at(&server);
        server.leave_key();
        server.kill_with_children();
        server = start_server(&site);
        transfer.process.signal(Signal::SIGCONT);
    }
    let status = transfer.running.wait();
    let said = fs::read_to_string(&errors)?;
    report.row("size", format!("{} bytes", opts.size));
    report.row("time", format!("{:.1?}", start.elapsed()));
    report.check(status.success(), || format!("the client ended with {status}: {said}"));
    report.check(server.settles(), || "children stay".to_owned());
    tally.tell(opts, &site.log(), &mut report)?;
    report.row("the client says", said.trim().trim_start_matches("mqfs-client: "));
    let parts = format!(" in {} parts", opts.kills + 1);
    report.check(said.contains(&parts) && said.contains("verified"), || {
        format!("not{parts}, or not verified: {said}")
    });
    let same = Command::new("cmp").args([&original, &copy]).status().context("cmp")?.success();
    report.check(same, || "WRONG BYTES".to_owned());
    server.stop();
    site.count_left(&mut report)?;
    Ok(report)
}

/// A server that runs no reaper meanwhile: all its children serve the transfer.
fn start_server(site: &Site) -> Server {
    site.server(&["--reap-interval", "1h"])
}

impl Transfer {
    fn start(site: &Site, copy: &Path, errors: &Path) -> Result<Self> {
        let mut command = site.client(errors)?;
        command.args(["--verbose", "-o"]).arg(copy).arg("/file").stdout(Stdio::null());
        let running = Running::start(&mut command);
        let process = Process::with_pid(running.pid()).context("/proc")?;
        Ok(Self { running, process })
    }

    /// How much it has written. Before its last line it writes nothing but the file.
    fn position(&self) -> Result<u64> {
        number(self.process.pid, "io", "wchar").context("/proc/PID/io of the client")
    }
}

impl Tally {
    /// Stops the client at the next of `kills` equal parts. It runs in short steps, so that it
    /// cannot reach the end before we look.
    fn stop_at_next(&mut self, transfer: &Transfer, opts: &Opts, kill: u64) -> Result<()> {
        const STEP: Duration = Duration::from_micros(500);
        let last = self.positions.last().copied().unwrap_or(0);
        let next = last + (opts.size - last) / (opts.kills - kill + 1);
        let start = Instant::now();
        loop {
            transfer.process.signal(Signal::SIGCONT);
            thread::sleep(STEP);
            if !transfer.process.freeze() {
                bail!("the client ended after {kill} kills: give it a larger --size");
            }
            let position = transfer.position()?;
            if position >= next.max(last + 1) && position < opts.size {
                self.positions.push(position);
                return Ok(());
            }
            ensure!(start.elapsed() < DEADLINE * 4, "the client is still at {position}");
        }
    }

    /// The child fills the queue and waits: the client does not read.
    fn look_at(&mut self, server: &Server) {
        let read = |child: &i32| number(*child, "io", "rchar");
        let mut before = None;
        wait_for(DEADLINE / 10, || {
            let now: Option<u64> = server.children().iter().map(read).sum();
            let same = now == before;
            before = now;
            thread::sleep(Duration::from_millis(5));
            same
        });
        self.read = self.read.take().zip(before).map(|(mut all, read)| {
            // It also read what its predecessor had sent, to verify what the client has.
            all.push(read.saturating_sub(all.last().copied().unwrap_or(0)));
            all
        });
    }

    fn tell(&self, opts: &Opts, log: &str, report: &mut Report) -> Result<()> {
        let mut at = String::new();
        for position in &self.positions {
            write!(at, " {}%", position * 100 / opts.size.max(1))?;
        }
        report.row("servers killed with all their children", format!("{} at{at}", opts.kills));
        let last = log.lines().rev().find(|line| line.contains("outcome=\"sent\""));
        let sent = last.and_then(|line| line.split(" bytes=").nth(1)?.split(' ').next());
        let sent: u64 = sent.context("the last child's line in the log")?.parse()?;
        report.row("sent by the last server", format!("{sent} bytes"));
        let Some(read) = self.read.as_ref().map(|all| all.iter().sum::<u64>()) else {
            report.row("read to be sent by all servers' children", "only root may look");
            return Ok(());
        };
        let more = (read + sent).saturating_sub(opts.size);
        let in_flight = opts.kills * (QueueLimits::current()?.msgmnb as u64 + READ_AT_ONCE);
        report.row("read to be sent by all servers' children", format!("{} bytes", read + sent));
        report.row("of these, more than once", format!("{more} bytes"));
        report.row("what queues and children can have in flight", format!("{in_flight} bytes"));
        report.check(more <= in_flight, || "more was sent again than was in flight".into());
        Ok(())
    }
}

/// `100`, `64K`, `64M`, `1G`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().zip(shift);
    number
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| "a size is written 100, 64K, 64M or 1G".to_owned())
}
