//! The server: up, away for a while, or leaving.

use std::time::{Duration, Instant};

use mqfs_kit::{Process, Running, Server, wait_until};
use nix::sys::signal::Signal;
use sysv_ipc::Lock;

use crate::site::{KEY, Site, adopted, start_reaper};

/// The present server, and earlier ones that still let their children finish.
#[derive(Debug)]
pub struct Service<'a> {
    site: &'a Site,
    /// If there is none, when the next one comes.
    pub server: Result<Server, Instant>,
    leaving: Vec<Server>,
    reapers: Vec<Running>,
    pub started: usize,
    pub wrong: Vec<String>,
}

impl<'a> Service<'a> {
    pub fn start(site: &'a Site) -> Self {
        let (server, leaving, reapers) = (Ok(start(site)), Vec::new(), Vec::new());
        Self { site, server, leaving, reapers, started: 1, wrong: Vec::new() }
    }

    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref().ok()
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.server().into_iter().chain(&self.leaving)
    }

    /// The children of all servers. We adopted those whose server died; `ours` are our own
    /// children.
    pub fn children(&self, ours: &[i32]) -> Vec<Process> {
        let children = self.servers().flat_map(Server::children).chain(adopted(ours));
        children.filter_map(Process::with_pid).filter(|child| child.lives()).collect()
    }

    /// Servers and reapers, which are children of ours.
    pub fn own_pids(&self) -> Vec<i32> {
        self.servers().map(Server::pid).chain(self.reapers.iter().map(Running::pid)).collect()
    }

    /// Kills the server; the next one comes after a while.
    pub fn kill(&mut self, with_children: bool, away: Duration) -> bool {
        let Ok(server) = &mut self.server else { return false };
        server.leave_key();
        if with_children {
            server.kill_with_children();
        } else {
            server.running().kill();
        }
        self.server = Err(Instant::now() + away);
        true
    }

    /// Asks the server to stop, and starts the next one as soon as it gives back the key.
    pub fn restart(&mut self) -> bool {
        let Ok(server) = &mut self.server else { return false };
        server.leave_key();
        server.signal(Signal::SIGTERM);
        let is_held = || Lock::open(KEY).is_ok_and(|lock| lock.is_held() == Ok(true));
        wait_until("the server gives back its key", || !is_held());
        self.started += 1;
        self.leaving.extend(std::mem::replace(&mut self.server, Ok(start(self.site))));
        true
    }

    /// Starts two reapers at once.
    pub fn reap(&mut self) -> bool {
        self.reapers.extend([start_reaper(), start_reaper()]);
        true
    }

    /// Starts the server if it is time, and collects servers and reapers that have ended.
    pub fn tend(&mut self) {
        if self.server.as_ref().is_err_and(|&until| until <= Instant::now()) {
            self.come_back();
        }
        let wrong = &mut self.wrong;
        let mut goes_on = |name: &str, running: &mut Running| {
            let Some(status) = running.ended() else { return true };
            if !status.success() {
                wrong.push(format!("{name} ended with {status}"));
            }
            false
        };
        self.reapers.retain_mut(|reaper| goes_on("mqfs-reap", reaper));
        self.leaving.retain_mut(|server| goes_on("a server after SIGTERM", server.running()));
    }

    pub fn come_back(&mut self) {
        if self.server.is_err() {
            self.server = Ok(start(self.site));
            self.started += 1;
        }
    }

    /// Waits until only the present server is left.
    pub fn calm_down(&mut self) {
        wait_until("servers and reapers end", || {
            self.tend();
            self.leaving.is_empty() && self.reapers.is_empty()
        });
    }
}

fn start(site: &Site) -> Server {
    // So few children that sessions must make way.
    let limits = ["--max-children", "8", "--idle-timeout", "1s"];
    site.server(&[&limits[..], &["--drain-timeout", "2s", "--reap-interval", "1s"]].concat())
}
