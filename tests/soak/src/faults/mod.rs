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
use mqfs_kit::{
    DEADLINE, Process, Random, Server, find_lease, listed, queues_of, wait_for, zombies_of,
};
use nix::sys::signal::Signal;
use sysv_ipc::{Queue, queues};

use crate::report::Report;
use crate::site::{KEY, Site};
use clients::{Clients, TIMEOUT};
use fault::{Fault, chosen};
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
}

/// How many clients run at once.
const CLIENTS: usize = 12;

#[derive(Debug)]
struct SoakTest<'a> {
    site: &'a Site,
    service: Service<'a>,
    clients: Clients<'a>,
    stopped: Stopped,
}

pub fn run(opts: &Opts, site: &Site, report: &mut Report) -> Result<()> {
    let (service, clients) = (Service::start(site), Clients::new(site, opts.seed)?);
    let mut test = SoakTest { site, service, clients, stopped: Stopped::default() };
    report.row("seed", opts.seed);
    for (fault, count) in test.inject_faults(opts)? {
        report.row(format!("  {fault:?}"), count);
    }
    test.calm_down(report);
    test.finish(report)
}

impl SoakTest<'_> {
    /// Returns how often it injected each fault.
    fn inject_faults(&mut self, opts: &Opts) -> Result<BTreeMap<Fault, usize>> {
        let (mut random, mut done) = (Random::new(opts.seed), BTreeMap::new());
        while done.values().sum::<usize>() < opts.faults {
            // The same seed makes the same choices, however long each takes.
            let end = Instant::now() + random.up_to(Duration::from_millis(16));
            let (fault, victim) = (Fault::any(&mut random), random.number());
            // Most victims are stopped or away for a moment, a few for long.
            let longest = if random.below(40) == 0 { 1500 } else { 40 };
            let lasts = random.up_to(Duration::from_millis(longest));
            self.tend()?;
            while Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
                self.tend()?;
            }
            if self.inject(fault, victim, lasts)? {
                *done.entry(fault).or_default() += 1;
            }
            self.site.wait_for_adopted(&self.own_pids());
        }
        Ok(done)
    }

    /// Does whatever is due: continues, starts, collects.
    fn tend(&mut self) -> Result<()> {
        self.stopped.go_on(|_, is_due| is_due);
        self.service.tend();
        // Far longer than all faults can delay one client.
        self.clients.tend(TIMEOUT * 9);
        // A few at a time, so that nothing else is late.
        for _ in self.clients.running.len()..CLIENTS.min(self.clients.running.len() + 3) {
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
    fn inject(&mut self, fault: Fault, victim: u64, lasts: Duration) -> Result<bool> {
        let mut children = self.service.children(&self.own_pids());
        let child = chosen(&mut children, victim);
        Ok(match fault {
            Fault::KillClient => self.signal_client(victim, fault, Signal::SIGKILL),
            Fault::TerminateClient => self.signal_client(victim, fault, Signal::SIGTERM),
            Fault::StopClient => chosen(&mut self.clients.running, victim).is_some_and(|client| {
                self.stopped.stop(client.process, client.files.len() > 1, lasts)
            }),
            Fault::KillChild => child.is_some_and(|child| child.signal(Signal::SIGKILL)),
            Fault::StopChild => child.is_some_and(|child| self.stopped.stop(*child, false, lasts)),
            Fault::KillServer => self.service.kill(false, lasts),
            Fault::KillService => self.service.kill(true, lasts),
            Fault::StopServer => {
                let server = self.service.server().map(Server::process);
                server.is_some_and(|server| self.stopped.stop(server, false, lasts))
            }
            Fault::RestartServer => {
                if let Some(server) = self.service.server().map(Server::process) {
                    self.stopped.go_on(|process, _| process == server);
                }
                self.service.restart()
            }
            Fault::Reap => self.service.reap(),
            Fault::RemoveRequestQueue => Queue::open(KEY).is_ok_and(|queue| queue.remove().is_ok()),
            Fault::RemoveReplyQueue => self.remove_reply_queue(victim),
            Fault::ReplaceFiles => self.replace_files(victim, &children)?,
        })
    }

    fn signal_client(&mut self, victim: u64, fault: Fault, signal: Signal) -> bool {
        let Some(client) = chosen(&mut self.clients.running, victim) else { return false };
        let is_ending = [Fault::KillClient, Fault::TerminateClient];
        if client.hit_by.iter().any(|fault| is_ending.contains(fault)) {
            return false;
        }
        // Noted before the signal, because the client may end at once.
        client.hit_by.push(fault);
        let process = client.process;
        self.stopped.go_on(|stopped, _| stopped == process);
        process.signal(signal)
    }

    /// Removes any reply queue.
    fn remove_reply_queue(&mut self, victim: u64) -> bool {
        let all = queues().into_iter().flatten().map(|(queue, _)| queue);
        let mut all: Vec<_> = all.filter_map(|queue| Some((queue, find_lease(queue)?))).collect();
        let Some(&mut (queue, lease)) = chosen(&mut all, victim) else { return false };
        for client in &mut self.clients.running {
            if client.process.owns(&lease) {
                client.hit_by.push(Fault::RemoveReplyQueue);
            }
        }
        self.stopped.forget(queue);
        queue.remove().is_ok()
    }

    /// Replaces the files that a client fetches, and kills the children that send them.
    fn replace_files(&mut self, victim: u64, children: &[Process]) -> Result<bool> {
        let Some(client) = self.clients.replace_files(victim)? else { return Ok(false) };
        let sender = |(queue, _): &(Queue, _)| Some(queue.status().ok()?.last_sender?.as_raw());
        let senders: Vec<_> = queues_of(client).iter().filter_map(sender).collect();
        for child in children.iter().filter(|child| senders.contains(&child.pid)) {
            child.signal(Signal::SIGKILL);
        }
        Ok(true)
    }

    /// Continues everything, and waits until all clients have ended.
    fn calm_down(&mut self, report: &mut Report) {
        self.stopped.go_on(|_, _| true);
        self.service.come_back();
        // From now on a client needs at most one timeout, and then one fetch.
        let deadline = Instant::now() + TIMEOUT + DEADLINE / 4;
        while !self.clients.running.is_empty() {
            let late = Instant::now() > deadline;
            self.clients.tend(if late { Duration::ZERO } else { Duration::MAX });
            self.service.tend();
            thread::sleep(Duration::from_millis(1));
        }
        report.row("clients", self.clients.started);
        for (how, count) in &self.clients.ended {
            report.row(format!("  {how}"), count);
        }
        let completed = self.clients.ended.keys().any(|how| how.starts_with("completed"));
        report.check(completed, || "no client completed".to_owned());
    }

    fn finish(mut self, report: &mut Report) -> Result<()> {
        report.row("queues of stopped clients, watched", self.stopped.watched);
        self.service.calm_down();
        let Self { site, service, clients, stopped } = self;
        for wrong in [clients.wrong, service.wrong, stopped.falsely_removed].concat() {
            report.wrong(wrong);
        }
        report.row("servers", service.started);
        let server = service.server.ok().context("the server is back")?;
        report.check(server.settles(), || "children stay".to_owned());
        report.none("zombies of the last server", zombies_of(server.pid()));
        // The segment that stays holds its counters.
        report.check(wait_for(DEADLINE / 12, || listed("shm") == 1), || "segments stay".to_owned());
        server.stop();
        site.count_left(report);
        // Where there is no O_TMPFILE, a killed client leaves this; open(2).
        let is_part = |copy: &DirEntry| copy.file_name().to_string_lossy().ends_with(".part");
        let left = fs::read_dir(site.folder("copies"))?.flatten().filter(|copy| !is_part(copy));
        report.none("files left beside the copies", left.count());
        for line in
            site.log().lines().filter(|line| line.contains("ERROR") || line.contains("panicked"))
        {
            report.wrong(format!("in the servers' log: {line}"));
        }
        Ok(())
    }
}
