//! Clients fetch files while faults are injected.
//!
//! They fetch single files with a request each, and several files and trees in sessions. The faults
//! are signals to clients, children and servers, reapers that run in between, removed queues, and
//! replaced files; a seed makes the choice repeatable. At the end everything that was stopped goes
//! on. Every client must end, every copy must be right, and nothing may be left.

mod clients;
mod fault;
mod files;
mod outcome;
mod service;
mod stopped;

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use mqfs_kit::{Process, Server, find_lease, queues_of, wait_for, zombies_of};
use nix::sys::signal::Signal;
use sysv_ipc::{Queue, queues};

use crate::report::Report;
use crate::site::{DEADLINE, Site};
use clients::Clients;
use fault::{Choice, Chooser, Fault};
use service::Service;
use stopped::Stopped;

/// Fetch files while clients, children and servers are killed and stopped
#[derive(Debug, Args)]
pub struct Opts {
    /// How many faults
    #[arg(long, value_name = "N", default_value = "1000")]
    faults: usize,
    /// Repeats the choice of faults, but not their timing
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// How many clients at once
    #[arg(long, value_name = "C", default_value = "12")]
    clients: usize,
    /// The clients' --timeout
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug)]
struct SoakTest<'a> {
    site: &'a Site,
    service: Service<'a>,
    clients: Clients<'a>,
    stopped: Stopped,
    opts: &'a Opts,
    done: BTreeMap<Fault, usize>,
}

pub fn run(opts: &Opts) -> Result<Report> {
    let (site, start) = (Site::new()?, Instant::now());
    let mut report = Report::default();
    report.row("where", site.namespace.describe());
    report.row("seed", opts.seed);
    let service = Service::start(&site);
    let clients = Clients::new(&site, opts.seed, opts.timeout)?;
    let (stopped, done) = (Stopped::default(), BTreeMap::new());
    let mut test = SoakTest { site: &site, service, clients, stopped, opts, done };
    test.inject_faults()?;
    report.row("faults", opts.faults);
    for (fault, _, name) in Fault::ALL {
        report.row(format!("  {name}"), test.done.get(&fault).unwrap_or(&0));
    }
    test.calm_down(&mut report)?;
    test.finish(&mut report)?;
    report.row("time", format!("{:.1?}", start.elapsed()));
    Ok(report)
}

impl SoakTest<'_> {
    fn inject_faults(&mut self) -> Result<()> {
        let mut chooser = Chooser::new(self.opts.seed);
        while self.done.values().sum::<usize>() < self.opts.faults {
            let choice = chooser.next();
            let end = Instant::now() + choice.pause;
            self.tend()?;
            while Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
                self.tend()?;
            }
            if self.inject(&choice)? {
                *self.done.entry(choice.fault).or_default() += 1;
            }
            self.site.wait_for_adopted(&self.own_pids());
        }
        Ok(())
    }

    /// Does whatever is due: continues, starts, collects.
    fn tend(&mut self) -> Result<()> {
        /// So many timeouts are far longer than all faults can delay one client.
        const TIMEOUTS: u32 = 6;
        self.go_on(|_, is_due| is_due);
        self.service.tend();
        let stopped = &self.stopped;
        self.clients
            .tend(self.opts.timeout * TIMEOUTS + DEADLINE, |process| stopped.holds(process));
        // A few at a time, so that nothing else is late.
        for _ in self.clients.running.len()..self.opts.clients.min(self.clients.running.len() + 3) {
            if self.service.server().is_some() {
                self.clients.start()?;
            }
        }
        Ok(())
    }

    /// The pids of the children that we started ourselves.
    fn own_pids(&self) -> Vec<i32> {
        [self.clients.pids(), self.service.own_pids()].concat()
    }

    /// False if there is no victim.
    fn inject(&mut self, choice: &Choice) -> Result<bool> {
        let Choice { fault, victim, lasts, .. } = *choice;
        Ok(match fault {
            Fault::KillClient => self.signal_client(victim, Signal::SIGKILL),
            Fault::TerminateClient => self.signal_client(victim, Signal::SIGTERM),
            Fault::StopClient => match self.clients.victim(victim) {
                Some(client) => self.stopped.stop(client.process, client.has_sessions(), lasts),
                None => false,
            },
            Fault::KillChild | Fault::StopChild => {
                let children = self.service.children(&self.own_pids());
                let count = children.len().max(1) as u64;
                match children.get((victim % count) as usize) {
                    Some(&child) if fault == Fault::StopChild => {
                        self.stopped.stop(child, false, lasts)
                    }
                    Some(child) => child.signal(Signal::SIGKILL),
                    None => false,
                }
            }
            Fault::KillServer => self.service.kill(false, lasts),
            Fault::KillService => self.service.kill(true, lasts),
            Fault::StopServer => match self.service.server() {
                Some(server) => self.stopped.stop(server.process(), false, lasts),
                None => false,
            },
            Fault::RestartServer => {
                if let Some(server) = self.service.server().map(Server::process) {
                    self.go_on(|process, _| process == server);
                }
                self.service.restart()
            }
            Fault::Reap | Fault::ReapTwice => {
                self.service.reap();
                if fault == Fault::ReapTwice {
                    self.service.reap();
                }
                true
            }
            // In the common namespace, they may be the queues of others.
            Fault::RemoveRequestQueue | Fault::RemoveReplyQueue if !self.site.namespace.is_own => {
                false
            }
            Fault::RemoveRequestQueue => {
                Queue::open(self.site.namespace.key).is_ok_and(|queue| queue.remove().is_ok())
            }
            Fault::RemoveReplyQueue => self.remove_reply_queue(victim),
            Fault::ReplaceFiles => self.replace_files(victim)?,
        })
    }

    fn signal_client(&mut self, victim: u64, signal: Signal) -> bool {
        let Some(client) = self.clients.victim(victim) else { return false };
        if client.killed || client.terminated {
            return false;
        }
        // Noted before the signal, because the client may end at once.
        client.killed = signal == Signal::SIGKILL;
        client.terminated = signal == Signal::SIGTERM;
        let process = client.process;
        self.go_on(|stopped, _| stopped == process);
        process.signal(signal)
    }

    /// Removes any reply queue.
    fn remove_reply_queue(&mut self, victim: u64) -> bool {
        let all = queues().into_iter().flatten().map(|(queue, _)| queue);
        let mut chosen: Vec<_> =
            all.filter_map(|queue| Some((queue, find_lease(queue)?))).collect();
        if chosen.is_empty() {
            return false;
        }
        let (queue, lease) = chosen.swap_remove((victim % chosen.len() as u64) as usize);
        if let Some(client) =
            self.clients.running.iter_mut().find(|client| client.process.owns(&lease))
        {
            client.queue_removed = true;
        }
        self.stopped.forget(queue);
        queue.remove().is_ok()
    }

    /// Continues stopped processes, before another fault hits them or when their time is over.
    fn go_on(&mut self, which: impl Fn(Process, bool) -> bool) {
        for (process, time) in self.stopped.go_on(which) {
            self.clients.was_stopped(process, time);
        }
    }

    /// Replaces the files that a client fetches, and kills the children that send them.
    fn replace_files(&mut self, victim: u64) -> Result<bool> {
        let children = self.service.children(&self.own_pids());
        let Some(client) = self.clients.replace_files(victim)? else { return Ok(false) };
        for sender in
            queues_of(client).iter().filter_map(|(queue, _)| queue.status().ok()?.last_sender)
        {
            let child = children.iter().find(|child| child.pid == sender.as_raw());
            child.map(|child| child.signal(Signal::SIGKILL));
        }
        Ok(true)
    }

    /// Continues everything, and waits until all clients have ended.
    fn calm_down(&mut self, report: &mut Report) -> Result<()> {
        self.go_on(|_, _| true);
        self.service.come_back();
        // From now on a client needs at most one timeout, and then one fetch.
        let deadline = Instant::now() + self.opts.timeout + DEADLINE / 2;
        while !self.clients.running.is_empty() {
            let late = Instant::now() > deadline;
            self.clients.tend(if late { Duration::ZERO } else { Duration::MAX }, |_| false);
            self.service.tend();
            thread::sleep(Duration::from_millis(1));
        }
        let tally = &mut self.clients.tally;
        report.row("clients", tally.started);
        for (how, count) in &tally.ended {
            report.row(format!("  {how}"), count);
        }
        report.row("  written", format!("{} MiB", tally.bytes >> 20));
        report.row("  the longest ran for", format!("{:.1?}", tally.longest));
        report.none("  hung", tally.hung);
        tally.wrong.drain(..).for_each(|wrong| report.wrong(wrong));
        let completed = tally.ended.keys().any(|how| how.starts_with("completed"));
        report.check(completed, || "no client completed".to_owned());
        Ok(())
    }

    fn finish(mut self, report: &mut Report) -> Result<()> {
        report.row("queues of stopped clients, watched", self.stopped.watched);
        report.none("  of these, falsely removed", self.stopped.falsely_removed.len());
        self.stopped.falsely_removed.drain(..).for_each(|gone| report.wrong(gone));
        self.service.calm_down();
        self.service.wrong.drain(..).for_each(|wrong| report.wrong(wrong));
        report.row("servers", self.service.started);
        let server = self.service.server().context("the server is back")?;
        report.check(server.settles(), || "children stay".to_owned());
        report.none("zombies of the last server", zombies_of(server.pid()));
        self.site.wait_for_adopted(&self.service.own_pids());
        let windows = || self.site.namespace.left("shm").saturating_sub(1);
        wait_for(DEADLINE / 6, || windows() == 0);
        report.none("segments besides its counters", windows());
        self.service.into_server().context("the server is back")?.stop();
        self.site.count_left(report)?;
        // Where there is no O_TMPFILE, a killed client leaves this; open(2).
        let is_part = |copy: &DirEntry| copy.file_name().to_string_lossy().ends_with(".part");
        let left =
            fs::read_dir(self.site.folder("copies"))?.flatten().filter(|copy| !is_part(copy));
        report.none("files left beside the copies", left.count());
        let log = self.site.log();
        for line in log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")) {
            report.wrong(format!("in the servers' log: {line}"));
        }
        Ok(())
    }
}
