//! Files are fetched while everything that can go wrong does.
//!
//! Clients fetch files of all sizes, one after the other. Meanwhile faults are injected, chosen by
//! chance that can be repeated: signals to clients, children and servers, reapers in between, queues
//! removed. At the end all that was stopped goes on, and everything must end, be right, and be gone.

mod clients;
mod fault;
mod keepers;
mod outcome;
mod service;
mod stopped;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use sysv_ipc::{Queue, queues};

use crate::support::{DEADLINE, Report, Site, descriptors, lease_of, zombies_of};
use clients::Clients;
use fault::{Choice, Chooser, Fault};
use keepers::Keepers;
use service::Service;
use stopped::Stopped;

/// Fetch files while clients, children and servers are killed and stopped
#[derive(Debug, Args)]
pub struct Opts {
    /// How many faults
    #[arg(long, value_name = "N", default_value = "1000")]
    faults: usize,
    /// What the choice of faults follows from; their timing does not
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// How many clients at once
    #[arg(long, value_name = "C", default_value = "12")]
    clients: usize,
    /// The clients' --timeout
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Stop after this time, with fewer faults
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration_limit: Option<Duration>,
}

/// The system under fire.
#[derive(Debug)]
struct Trial<'a> {
    site: &'a Site,
    service: Service<'a>,
    clients: Clients<'a>,
    keepers: Keepers,
    stopped: Stopped,
    opts: &'a Opts,
    done: [usize; Fault::ALL.len()],
}

pub fn run(opts: &Opts) -> Result<Report> {
    let (site, start) = (Site::new()?, Instant::now());
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    report.row("seed", opts.seed);
    let service = Service::start(&site)?;
    let clients = Clients::new(&site, opts.seed, opts.timeout)?;
    let keepers = Keepers::start(&site, opts.seed, opts.timeout)?;
    let (stopped, done) = (Stopped::default(), [0; Fault::ALL.len()]);
    let mut trial = Trial { site: &site, service, clients, keepers, stopped, opts, done };
    trial.fire(start)?;
    report.row("faults", trial.done.iter().sum::<usize>());
    for ((_, _, name), count) in Fault::ALL.iter().zip(trial.done) {
        report.row(format!("  {name}"), count);
    }
    trial.calm_down(&mut report)?;
    trial.finish(&mut report)?;
    report.row("time", format!("{:.1?}", start.elapsed()));
    Ok(report)
}

impl Trial<'_> {
    fn fire(&mut self, start: Instant) -> Result<()> {
        let mut chooser = Chooser::new(self.opts.seed, self.site.namespace.is_own);
        while self.done.iter().sum::<usize>() < self.opts.faults {
            if self.opts.duration_limit.is_some_and(|limit| start.elapsed() > limit) {
                break;
            }
            let choice = chooser.next();
            let end = Instant::now() + choice.pause;
            loop {
                self.tend()?;
                if Instant::now() >= end {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            if self.inject(&choice)? {
                let at = Fault::ALL.iter().position(|(fault, ..)| *fault == choice.fault);
                self.done[at.context("every fault is listed")?] += 1;
            }
            self.site.bury(&self.own_pids());
        }
        Ok(())
    }

    /// Whatever is due.
    fn tend(&mut self) -> Result<()> {
        /// Faults prolong a client's life. This is many times as long as any of them.
        const LIVES: u32 = 6;
        for (process, stood) in self.stopped.let_go(Instant::now()) {
            self.clients.stood(process, stood);
        }
        self.service.tend()?;
        let stopped = &self.stopped;
        self.clients.tend(self.opts.timeout * LIVES + DEADLINE, |process| stopped.holds(process));
        // A few at a time, so that what else is due is not late.
        for _ in self.clients.running.len()..self.opts.clients.min(self.clients.running.len() + 3) {
            if self.service.server().is_some() {
                self.clients.start()?;
            }
        }
        Ok(())
    }

    /// Our children that are no server's.
    fn own_pids(&self) -> Vec<i32> {
        [self.clients.pids(), self.keepers.pids(), self.service.own_pids()].concat()
    }

    /// Whether there was anything to be hit.
    fn inject(&mut self, choice: &Choice) -> Result<bool> {
        let Choice { fault, victim, lasts, .. } = *choice;
        Ok(match fault {
            Fault::KillClient => self.signal_client(victim, Signal::SIGKILL),
            Fault::TerminateClient => self.signal_client(victim, Signal::SIGTERM),
            Fault::StopClient => match self.clients.victim(victim) {
                Some(client) => self.stopped.stop(client.process, lasts),
                None => false,
            },
            Fault::KillChild | Fault::StopChild => {
                let children = self.service.children(&self.own_pids());
                let count = children.len().max(1) as u64;
                match children.get((victim % count) as usize) {
                    Some(&child) if fault == Fault::StopChild => self.stopped.stop(child, lasts),
                    Some(child) => child.signal(Signal::SIGKILL),
                    None => false,
                }
            }
            Fault::KillServer => self.service.kill(false, lasts),
            Fault::KillService => self.service.kill(true, lasts),
            Fault::StopServer => match self.service.server() {
                Some(server) => self.stopped.stop(server.process, lasts),
                None => false,
            },
            Fault::RestartServer => {
                if let Some(server) = self.service.server() {
                    self.stopped.release(server.process);
                }
                self.service.restart()?
            }
            Fault::Reap | Fault::ReapTwice => {
                self.service.reap()?;
                if fault == Fault::ReapTwice {
                    self.service.reap()?;
                }
                true
            }
            Fault::RemoveRequestQueue => {
                Queue::open(self.site.namespace.key).is_ok_and(|queue| queue.remove().is_ok())
            }
            Fault::RemoveReplyQueue => self.remove_reply_queue(victim),
        })
    }

    fn signal_client(&mut self, victim: u64, signal: Signal) -> bool {
        let Some(client) = self.clients.victim(victim) else { return false };
        if client.killed || client.terminated {
            return false;
        }
        // Told before it can end; and what stands is looked after until then.
        client.killed = signal == Signal::SIGKILL;
        client.terminated = signal == Signal::SIGTERM;
        let process = client.process;
        self.stopped.release(process);
        process.signal(signal)
    }

    /// Only in a namespace of our own, and none that is to be there at the end.
    fn remove_reply_queue(&mut self, victim: u64) -> bool {
        let all = queues().into_iter().flatten().map(|(queue, _)| queue);
        let leased = all.filter_map(|queue| Some((queue, lease_of(queue)?)));
        let (keepers, clients) = (&self.keepers, &mut self.clients.running);
        let mut chosen: Vec<_> = leased.filter(|(queue, _)| !keepers.holds(*queue)).collect();
        if chosen.is_empty() {
            return false;
        }
        let (queue, lease) = chosen.swap_remove((victim % chosen.len() as u64) as usize);
        if let Some(client) = clients.iter_mut().find(|client| client.process.owns(&lease)) {
            client.queue_removed = true;
        }
        self.stopped.forget(queue);
        queue.remove().is_ok()
    }

    /// Lets everything go on, and waits until all clients have ended.
    fn calm_down(&mut self, report: &mut Report) -> Result<()> {
        for (process, stood) in self.stopped.release_all() {
            self.clients.stood(process, stood);
        }
        self.service.come_back()?;
        // From now on one timeout is the longest that anything can take, and then a fetch.
        let deadline = Instant::now() + self.opts.timeout + DEADLINE / 2;
        while !self.clients.running.is_empty() {
            let late = Instant::now() > deadline;
            self.clients.tend(if late { Duration::ZERO } else { Duration::MAX }, |_| false);
            self.service.tend()?;
            thread::sleep(Duration::from_millis(1));
        }
        let tally = &mut self.clients.tally;
        report.row("clients", tally.started);
        let resumed = tally.resumed;
        let mib = tally.bytes >> 20;
        report.row("  completed, and right", format!("{} ({mib} MiB)", tally.completed));
        report.row("  of these, resumed after a fault", resumed);
        report.row("  killed by us", tally.killed);
        report.row("  interrupted by us", tally.terminated);
        for (line, count) in &tally.failed {
            report.row("  failed", format!("{count}: {line}"));
        }
        report.row("  the longest ran for", format!("{:.1?}", tally.longest));
        report.none("  hung", tally.hung);
        tally.wrong.drain(..).for_each(|wrong| report.wrong(wrong));
        report.check(tally.completed > 0, || "no client completed".to_owned());
        Ok(())
    }

    fn finish(mut self, report: &mut Report) -> Result<()> {
        report.row("queues of stopped clients, looked after", self.stopped.watched);
        report.none("  of these, falsely removed", self.stopped.falsely_removed.len());
        self.stopped.falsely_removed.drain(..).for_each(|gone| report.wrong(gone));
        self.keepers.finish(report);
        report.check(self.service.calms_down()?, || "a server or reaper does not end".to_owned());
        self.service.wrong.drain(..).for_each(|wrong| report.wrong(wrong));
        report.row("servers", self.service.started);
        let server = self.service.server().context("the server is back")?;
        report.check(server.settles(), || "children stay".to_owned());
        report.none("zombies of the last server", zombies_of(server.pid()));
        self.site.bury(&self.service.own_pids());
        if let Some((first, last)) = self.service.descriptors.zip(descriptors(server.pid())) {
            report.row("descriptors of the first and the last server", format!("{first}, {last}"));
            report.check(last <= first, || "descriptors leaked".to_owned());
        }
        stop(self.site, self.service, report)
    }
}

fn has_unnamed_files(folder: &Path) -> bool {
    let unnamed = OFlag::O_TMPFILE | OFlag::O_WRONLY;
    nix::fcntl::open(folder, unnamed, Mode::S_IRUSR).is_ok()
}

/// Ends the last server and counts what is left.
fn stop(site: &Site, service: Service<'_>, report: &mut Report) -> Result<()> {
    let mut server = service.into_server().context("the server is back")?;
    if let Err(error) = server.stop(DEADLINE) {
        report.wrong(error.to_string());
    }
    site.count_left(report)?;
    let left = fs::read_dir(site.copies())?.flatten().filter(|copy| {
        // Without O_TMPFILE this is what a client leaves that was killed; open(2).
        let is_part = copy.file_name().to_string_lossy().ends_with(".part");
        !is_part || has_unnamed_files(&site.copies())
    });
    report.none("files left beside the copies", left.count());
    let log = site.log();
    let bad = log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked"));
    let bad: Vec<_> = bad.collect();
    report.none("errors in the servers' log", bad.len());
    bad.iter().take(5).for_each(|line| report.wrong(*line));
    Ok(())
}
