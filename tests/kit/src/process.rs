//! Processes as /proc shows them: proc_pid_stat(5), proc_pid_status(5), proc_pid_io(5).

use std::fs;
use std::os::unix::fs::MetadataExt;

use mqfs::wire::{Lease, OwnerId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::{DEADLINE, wait_for};

/// A process. Its start time tells it from a later process with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub start_time: u64,
}

impl Process {
    pub fn with_pid(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: Stat::of(pid)?.start_time() })
    }

    /// Whether a lease names this process as the owner of its queue.
    pub fn owns(self, lease: &Lease) -> bool {
        (lease.owner.pid, lease.owner.start_time) == (self.pid, self.start_time)
    }

    /// Sends a signal; false if the process has ended.
    pub fn signal(self, signal: Signal) -> bool {
        self.stat().is_some() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Whether it runs, sleeps or is stopped, and is no zombie.
    pub fn lives(self) -> bool {
        self.stat().is_some_and(|stat| !"ZX".contains(stat.state()))
    }

    /// Stops it, and waits until all its threads are stopped; false if it ended before.
    pub fn freeze(self) -> bool {
        if !self.lives() || !self.signal(Signal::SIGSTOP) {
            return false;
        }
        wait_for(DEADLINE, || self.is_stopped() || !self.lives()) && self.lives()
    }

    pub fn is_stopped(self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return false };
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).ok().and_then(Stat::parse);
            stat.is_none_or(|stat| stat.state() == 'T')
        })
    }

    /// Whether it waits in this system call: proc_pid_syscall(5).
    pub fn waits_in(self, call: libc::c_long) -> bool {
        let line = fs::read_to_string(format!("/proc/{}/syscall", self.pid)).unwrap_or_default();
        line.split(' ').next() == Some(&call.to_string()) && self.lives()
    }

    pub fn children(self) -> Vec<Self> {
        children_of(self.pid).into_iter().filter_map(Self::with_pid).collect()
    }

    fn stat(self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| stat.start_time() == self.start_time)
    }
}

/// The fields of /proc/PID/stat, from the state on.
struct Stat(Vec<String>);

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: String) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses included.
        Some(Self(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect()))
    }

    /// A field that is a number, counted from 1 as the manual page does.
    fn number<T: std::str::FromStr>(&self, field: usize) -> Option<T> {
        self.0.get(field - 3)?.parse().ok()
    }

    fn state(&self) -> char {
        self.0[0].chars().next().unwrap_or('?')
    }

    fn parent(&self) -> Option<i32> {
        self.number(4)
    }

    fn start_time(&self) -> u64 {
        self.number(22).expect("every process has a start time")
    }
}

/// The processes whose parent is `pid`, zombies included.
pub fn children_of(pid: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&child| Stat::of(child).is_some_and(|stat| stat.parent() == Some(pid)))
        .collect()
}

/// How many children of a process have ended, and it has not waited for them.
pub fn zombies_of(pid: i32) -> usize {
    children_of(pid).into_iter().filter(|&child| state_of(child) == Some('Z')).count()
}

/// The state letter of a process in /proc/PID/stat; None if there is no such process.
pub fn state_of(pid: i32) -> Option<char> {
    Stat::of(pid).map(|stat| stat.state())
}

/// The CPU seconds of a process, without those of its children.
pub fn cpu_of(pid: i32) -> Option<f64> {
    ticks(pid, [14, 15])
}

/// The CPU seconds of a process and of the children that it waited for.
pub fn cpu_with_children_of(pid: i32) -> Option<f64> {
    ticks(pid, [14, 15, 16, 17])
}

fn ticks<const N: usize>(pid: i32, fields: [usize; N]) -> Option<f64> {
    let stat = Stat::of(pid)?;
    let ticks: f64 = fields.into_iter().filter_map(|field| stat.number::<f64>(field)).sum();
    Some(ticks / ticks_per_second())
}

/// The unit of CPU times in /proc.
pub fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// How many descriptors a process has open; None where we may not look.
pub fn descriptors(pid: i32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// A field of /proc/PID/FILE by its name, without the name: `field(pid, "status", "VmSize")`.
pub fn field(pid: i32, file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
    text.lines().find_map(value)
}

/// A field of /proc/PID/FILE that is a number, with or without a unit: `VmSize`, in KiB.
pub fn number(pid: i32, file: &str, name: &str) -> Option<u64> {
    field(pid, file, name)?.split_whitespace().next()?.parse().ok()
}

/// A living process, as its own lease would name it.
pub fn owner_of(pid: i32) -> OwnerId {
    let ids = field(pid, "status", "NSpid").expect("the process lives");
    let namespace = |kind| fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap().ino();
    OwnerId {
        pid: ids.split_whitespace().last().unwrap().parse().unwrap(),
        start_time: Stat::of(pid).unwrap().start_time(),
        pid_namespace: namespace("pid"),
        time_namespace: namespace("time"),
    }
}
