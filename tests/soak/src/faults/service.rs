//! The server: up, away for a while, or leaving.

use std::time::{Duration, Instant};

use mqfs_kit::{Process, Running, Server, children_of, wait_until};
use nix::sys::signal::Signal;
use sysv_ipc::Lock;

use crate::site::{DEADLINE, Site, own_pid};

/// The present server, and earlier ones that still let their children finish.
#[derive(Debug)]
pub struct Service<'a> {
    site: &'a Site,
    /// If there is none, when the next one comes.
    server: Result<Server, Instant>,
    leaving: Vec<(Server, Instant)>,
    reapers: Vec<Running>,
    pub started: usize,
    pub wrong: Vec<String>,
}

/// How long a server lets its children finish.
const DRAIN: Duration = Duration::from_secs(2);

impl<'a> Service<'a> {
    pub fn start(site: &'a Site) -> Self {
        let server = start(site);
        let (leaving, reapers, wrong) = (Vec::new(), Vec::new(), Vec::new());
        Self { site, server: Ok(server), leaving, reapers, started: 1, wrong }
    }

    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref().ok()
    }

    pub fn into_server(self) -> Option<Server> {
        self.server.ok()
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.server().into_iter().chain(self.leaving.iter().map(|(server, _)| server))
    }

    /// The children of all servers. We adopted those whose server died; `ours` are our own
    /// children.
    pub fn children(&self, ours: &[i32]) -> Vec<Process> {
        let mut children: Vec<_> = self.servers().flat_map(Server::children).collect();
        children.extend(children_of(own_pid()).iter().filter(|child| !ours.contains(child)));
        children.into_iter().filter_map(Process::with_pid).filter(|child| child.lives()).collect()
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
        let key = self.site.namespace.key;
        let is_held = || Lock::open(key).is_ok_and(|lock| lock.is_held() == Ok(true));
        wait_until("the server gives back its key", || !is_held());
        let next = Ok(start(self.site));
        self.started += 1;
        if let Ok(server) = std::mem::replace(&mut self.server, next) {
            self.leaving.push((server, Instant::now() + DRAIN + DEADLINE));
        }
        true
    }

    pub fn reap(&mut self) {
        self.reapers.push(self.site.start_reaper());
    }

    /// Starts the server if it is time, and collects servers and reapers that have ended.
    pub fn tend(&mut self) {
        if self.server.as_ref().is_err_and(|&until| until <= Instant::now()) {
            self.come_back();
        }
        let wrong = &mut self.wrong;
        let mut has_ended = |name: &str, running: &mut Running| match running.ended() {
            None => false,
            Some(status) => {
                if !status.success() {
                    wrong.push(format!("{name} ended with {status}"));
                }
                true
            }
        };
        self.reapers.retain_mut(|reaper| !has_ended("mqfs-reap", reaper));
        self.leaving.retain_mut(|(server, deadline)| {
            if has_ended("a server that was asked to stop", server.running()) {
                return false;
            }
            assert!(Instant::now() < *deadline, "a server does not stop");
            true
        });
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
    let drain = format!("{}s", DRAIN.as_secs());
    // So few children that sessions must make way.
    let limits = ["--max-children", "8", "--idle-timeout", "1s"];
    site.server(&[&["--drain-timeout", &drain, "--reap-interval", "1s"], &limits[..]].concat())
}
