//! One large transfer whose servers are killed on the way, each with all its children.
//!
//! What is sent twice? The client asks the next server for what follows its last byte, and it reads
//! what a dead child left in the queue before it asks. So no byte should come twice but what was in
//! flight: what a queue holds (`msg_qbytes`), and what the child has read at once to send it. Servers
//! that are killed log nothing; so the children are stopped, and /proc/PID/io tells what each has read
//! (rchar): what it sent, what it had in hand, and what the one before had sent, to compare it. The last
//! child tells in the log what it sent. The sum, less the size, bounds from above what came twice.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::signal::Signal;
use sysv_ipc::QueueLimits;

use crate::support::{
    DEADLINE, Process, Report, Server, Site, bytes_read, bytes_written, end_of, size, wait_for,
    write_noise,
};

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

/// What the children that were killed had read of the file, and what the client had of it then.
#[derive(Debug, Default)]
struct Tally {
    /// None: not for us to see.
    read: Option<Vec<u64>>,
    positions: Vec<u64>,
}

/// The transfer.
#[derive(Debug)]
struct Transfer {
    child: Child,
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
    let mut server = start_server(&site)?;
    let start = Instant::now();
    let mut transfer = Transfer::start(&site, &copy, &errors)?;
    let mut tally = Tally { read: Some(Vec::new()), positions: Vec::new() };
    for kill in 0..opts.kills {
        tally.stop_at_next(&transfer, opts, kill)?;
        tally.look_at(&server);
        server.kill_all();
        server = start_server(&site)?;
        transfer.process.signal(Signal::SIGCONT);
    }
    let status = end_of(&mut transfer.child, DEADLINE * 4).context("the client hung")?;
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
    compare(&original, &copy, &mut report)?;
    server.stop(DEADLINE)?;
    site.count_left(&mut report)?;
    Ok(report)
}

/// One that keeps no house meanwhile: its children are those of the transfer.
fn start_server(site: &Site) -> Result<Server> {
    site.server(&["--reap-interval", "1h"])
}

impl Transfer {
    fn start(site: &Site, copy: &Path, errors: &Path) -> Result<Self> {
        let mut command = site.client(errors)?;
        command.args(["--verbose", "-o"]).arg(copy).arg("/file").stdout(Stdio::null());
        let child = command.spawn().context("mqfs-client")?;
        let process = Process::with_pid(child.id() as i32).context("/proc")?;
        Ok(Self { child, process })
    }

    /// What it has written; its output and nothing else before its last line.
    fn position(&self) -> Result<u64> {
        bytes_written(self.process.pid).context("/proc/PID/io of the client")
    }
}

impl Tally {
    /// Stops the client where the way that is left is to be cut next. It goes in small steps, and
    /// each is stopped, so that it cannot be at its end before we look.
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
            ensure!(start.elapsed() < DEADLINE * 4, "the client stands at {position}");
        }
    }

    /// The child fills the queue and waits: the client does not read.
    fn look_at(&mut self, server: &Server) {
        let read = |child: &Process| bytes_read(child.pid);
        let mut before = None;
        wait_for(DEADLINE / 10, || {
            let now: Option<u64> = server.children().iter().map(read).sum();
            let same = now == before;
            before = now;
            thread::sleep(Duration::from_millis(5));
            same
        });
        self.read = self.read.take().zip(before).map(|(mut all, read)| {
            // It read what the one before had sent, too, to compare it with what arrived.
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
            report.row("read to be sent by all servers' children", "not to be seen without root");
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

/// Byte for byte.
fn compare(original: &Path, copy: &Path, report: &mut Report) -> Result<()> {
    let mut files = [BufReader::new(File::open(original)?), BufReader::new(File::open(copy)?)];
    let [mut one, mut other] = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let mut at = 0;
    loop {
        let length = fill(&mut files[0], &mut one)?;
        let same = fill(&mut files[1], &mut other)? == length && one[..length] == other[..length];
        at += length;
        if !same || length == 0 {
            report.row("compared", format!("{at} bytes"));
            report.check(same, || format!("WRONG BYTES within the first {at}"));
            return Ok(());
        }
    }
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
