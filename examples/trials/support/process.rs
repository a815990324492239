//! Processes as /proc shows them, and signals that hit no other process than they are meant for.

use std::fs;

use mqfs::wire::Lease;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait_for;

/// A process, told by its start time from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    start_time: u64,
}

/// What proc_pid_stat(5) says.
struct Stat {
    state: char,
    parent: i32,
    start_time: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn with_pid(pid: i32) -> Option<Self> {
        let start_time = stat(pid)?.start_time;
        Some(Self { pid, start_time })
    }

    /// Whether a lease names it.
    pub fn owns(self, lease: &Lease) -> bool {
        (lease.owner.pid, lease.owner.start_time) == (self.pid, self.start_time)
    }

    /// Whether it was sent: not to a process that has ended.
    pub fn signal(self, signal: Signal) -> bool {
        self.is_there() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Whether it has not been waited for.
    pub fn is_there(self) -> bool {
        Self::with_pid(self.pid) == Some(self)
    }

    /// Whether it runs or could, if it were not stopped.
    pub fn lives(self) -> bool {
        self.state().is_some_and(|state| !"ZX".contains(state))
    }

    fn state(self) -> Option<char> {
        stat(self.pid).filter(|stat| stat.start_time == self.start_time).map(|stat| stat.state)
    }

    /// Stops it, and waits until all its threads stand; false if it ended before.
    pub fn freeze(self) -> bool {
        if !self.lives() || !self.signal(Signal::SIGSTOP) {
            return false;
        }
        wait_for(super::DEADLINE, || self.stands() || !self.lives()) && self.lives()
    }

    fn stands(self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return false };
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat"));
            stat.ok().and_then(|stat| parse(&stat)).is_none_or(|stat| stat.state == 'T')
        })
    }
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Stat> {
    // The name in parentheses may hold anything, parentheses included.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// The children of a process, zombies included.
pub fn children_of(parent: i32) -> Vec<Process> {
    family_of(parent).into_iter().map(|(child, _)| child).collect()
}

/// How many of its children ended and were not waited for.
pub fn zombies_of(parent: i32) -> usize {
    family_of(parent).iter().filter(|(_, state)| *state == 'Z').count()
}

fn family_of(parent: i32) -> Vec<(Process, char)> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = stat(pid).filter(|stat| stat.parent == parent)?;
        Some((Process { pid, start_time: stat.start_time }, stat.state))
    })
    .collect()
}

/// How many descriptors are open; None where that is not for us to see.
pub fn descriptors(pid: i32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// `RssAnon`: the memory that is its own and in use, in KiB.
pub fn anonymous_kib(pid: i32) -> Option<u64> {
    field(&format!("/proc/{pid}/status"), "RssAnon:")
}

/// `VmSize`: everything mapped, in KiB.
pub fn virtual_kib(pid: i32) -> Option<u64> {
    field(&format!("/proc/{pid}/status"), "VmSize:")
}

/// What it has read so far, from whatever; None where that is not for us to see.
pub fn bytes_read(pid: i32) -> Option<u64> {
    field(&format!("/proc/{pid}/io"), "rchar:")
}

/// What it has written so far, to whatever; None where that is not for us to see.
pub fn bytes_written(pid: i32) -> Option<u64> {
    field(&format!("/proc/{pid}/io"), "wchar:")
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
