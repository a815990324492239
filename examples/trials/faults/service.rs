//! The server under fire: up, away for a while, or leaving.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use sysv_ipc::Lock;

use crate::support::{DEADLINE, Process, Server, Site, children_of, descriptors, end_of, wait_for};

/// The server of the trial, and those that were.
#[derive(Debug)]
pub struct Service<'a> {
    site: &'a Site,
    state: State,
    /// Those that let their children finish.
    leaving: Vec<(Server, Instant)>,
    reapers: Vec<Child>,
    pub started: usize,
    /// Of the first server, before anybody asked; None: not for us to see.
    pub descriptors: Option<usize>,
    pub wrong: Vec<String>,
}

#[derive(Debug)]
enum State {
    Up(Server),
    /// Until when.
    Away(Instant),
}

/// How long a server lets its children finish.
const DRAIN: Duration = Duration::from_secs(2);

impl<'a> Service<'a> {
    pub fn start(site: &'a Site) -> Result<Self> {
        let server = start(site)?;
        let descriptors = descriptors(server.pid());
        let state = State::Up(server);
        let (leaving, reapers, wrong) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { site, state, leaving, reapers, started: 1, descriptors, wrong })
    }

    pub fn server(&self) -> Option<&Server> {
        match &self.state {
            State::Up(server) => Some(server),
            State::Away(_) => None,
        }
    }

    pub fn into_server(self) -> Option<Server> {
        match self.state {
            State::Up(server) => Some(server),
            State::Away(_) => None,
        }
    }

    /// The one that can be asked, and those that leave.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.server().into_iter().chain(self.leaving.iter().map(|(server, _)| server))
    }

    /// Every child of a server that is there to be hit; also of those that are no more, which came
    /// to us.
    pub fn children(&self, ours: &[i32]) -> Vec<Process> {
        let mut children: Vec<_> = self.servers().flat_map(Server::children).collect();
        let adopted = children_of(std::process::id() as i32);
        children.extend(adopted.into_iter().filter(|child| !ours.contains(&child.pid)));
        children.retain(|child| child.lives());
        children
    }

    /// Servers and reapers, which are children of ours.
    pub fn own_pids(&self) -> Vec<i32> {
        let reapers = self.reapers.iter().map(|reaper| reaper.id() as i32);
        self.servers().map(Server::pid).chain(reapers).collect()
    }

    /// Kills it; the next one comes after a while.
    pub fn kill(&mut self, with_children: bool, away: Duration) -> bool {
        let State::Up(server) = &mut self.state else { return false };
        if with_children {
            server.kill_all();
        } else {
            server.kill();
        }
        self.state = State::Away(Instant::now() + away);
        true
    }

    /// Asks it to stop, and starts the next one as soon as it lets go of the key.
    pub fn restart(&mut self) -> Result<bool> {
        let State::Up(server) = &self.state else { return Ok(false) };
        server.process.signal(Signal::SIGTERM);
        let key = self.site.namespace.key;
        let is_held = || Lock::open(key).is_ok_and(|lock| lock.is_held() == Ok(true));
        ensure!(wait_for(DEADLINE, || !is_held()), "a server does not let go of its key");
        let next = State::Up(start(self.site)?);
        self.started += 1;
        if let State::Up(server) = std::mem::replace(&mut self.state, next) {
            self.leaving.push((server, Instant::now() + DRAIN + DEADLINE));
        }
        Ok(true)
    }

    pub fn reap(&mut self) -> Result<()> {
        self.reapers.push(self.site.start_reaper()?);
        Ok(())
    }

    /// Starts the server if it is time, and sees who has ended.
    pub fn tend(&mut self) -> Result<()> {
        if let State::Away(until) = self.state
            && until <= Instant::now()
        {
            self.come_back()?;
        }
        let wrong = &mut self.wrong;
        self.leaving.retain_mut(|(server, deadline)| match server.end(Duration::ZERO) {
            Some(status) if status.success() => false,
            Some(status) => {
                wrong.push(format!("a server that was to stop ended with {status}"));
                false
            }
            None if *deadline < Instant::now() => {
                wrong.push("a server does not stop".to_owned());
                false // dropped, it is killed
            }
            None => true,
        });
        self.reapers.retain_mut(|reaper| match end_of(reaper, Duration::ZERO) {
            Some(status) if status.success() => false,
            Some(status) => {
                wrong.push(format!("mqfs-reap: {status}"));
                false
            }
            None => true,
        });
        Ok(())
    }

    pub fn come_back(&mut self) -> Result<()> {
        if let State::Away(_) = self.state {
            self.state = State::Up(start(self.site)?);
            self.started += 1;
        }
        Ok(())
    }

    /// Waits until only the server is left; whether that came to be.
    pub fn calms_down(&mut self) -> Result<bool> {
        let deadline = Instant::now() + DRAIN + DEADLINE;
        while !(self.leaving.is_empty() && self.reapers.is_empty()) {
            if deadline < Instant::now() {
                return Ok(false);
            }
            self.tend()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }
}

fn start(site: &Site) -> Result<Server> {
    let drain = format!("{}s", DRAIN.as_secs());
    site.server(&["--drain-timeout", &drain, "--reap-interval", "1s"])
}
