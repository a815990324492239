//! Alive or dead. *Dead* takes proof that holds for ever; doubt means alive.
//!
//! A lease names its owner by pid, start time and namespaces. Within one pid namespace, a pid that
//! `kill` does not know proves death, and so does one that started at another time: the number
//! went to somebody else. Processes of other namespaces can be judged only from the initial one,
//! whose /proc shows them all.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::io;

use crate::sys::kill;
use nix::errno::Errno;
use sysv_ipc::Pid;

use super::procfs::{self as proc, Stat, Waiting};
use crate::wire::OwnerId;
use sysv_ipc::QueueId;

/// Whether a process lives, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It lives, or nothing proves that it does not.
    Alive(Alive),
    /// It is proven dead.
    Dead(Dead),
}

/// Why a process counts as alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alive {
    /// The process is there.
    Running,
    /// There is a process with its pid; /proc does not tell whether it is the same one.
    Unproven,
    /// It is in a pid namespace that cannot be seen from here.
    ElsewhereUnseen,
}

/// What proves a process dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dead {
    /// No process has its pid (`ESRCH`).
    NoSuchProcess,
    /// Its pid belongs to a process that started at another time.
    PidReused,
    /// It has ended and waits for its parent to notice.
    Zombie,
    /// No process of its pid namespace has its pid and start time.
    NotInNamespace,
}

impl fmt::Display for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "owner is running",
            Self::Unproven => "a process has the owner's pid",
            Self::ElsewhereUnseen => "owner is in another pid namespace",
        })
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchProcess => "owner is gone",
            Self::PidReused => "owner is gone, its pid reused",
            Self::Zombie => "owner has ended",
            Self::NotInNamespace => "owner is gone from its pid namespace",
        })
    }
}

/// A process of this pid namespace that somebody has seen, so as to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pid: Pid,
    /// None where /proc does not tell.
    start_time: Option<u64>,
}

impl Seen {
    /// Whoever has this pid now.
    pub fn now(pid: Pid) -> Self {
        let start_time = Stat::read(&pid.to_string()).ok().map(|stat| stat.start_time);
        Self { pid, start_time }
    }
}

/// Judges processes. It must be made *after* the [`OwnerId`]s that it is asked about were read:
/// what it looks at once is then younger than they are, so that an owner that it does not find has
/// not merely been born since.
#[derive(Debug)]
pub struct Observer {
    pid_namespace: u64,
    time_namespace: u64,
    proc_is_ours: bool,
    census: OnceCell<Option<Census>>,
    waiting: OnceCell<Vec<Waiting>>,
}

impl Observer {
    /// An observer in this process's namespaces.
    pub fn new() -> Self {
        Self {
            pid_namespace: proc::namespace("self", "pid").unwrap_or(0),
            time_namespace: proc::namespace("self", "time").unwrap_or(0),
            proc_is_ours: proc::is_ours(),
            census: OnceCell::new(),
            waiting: OnceCell::new(),
        }
    }

    /// Whether this process lives.
    pub fn life_of(&self, owner: &OwnerId) -> Life {
        if owner.pid <= 0 || owner.pid_namespace == 0 {
            Life::Alive(Alive::Unproven)
        } else if owner.pid_namespace == self.pid_namespace {
            self.life_here(owner)
        } else {
            self.life_elsewhere(owner)
        }
    }

    /// Whether this process lives, for who must not be kept by the answer: looking through another
    /// pid namespace takes as long as there are processes.
    pub fn life_nearby(&self, owner: &OwnerId) -> Life {
        if owner.pid_namespace == self.pid_namespace {
            self.life_of(owner)
        } else {
            Life::Alive(Alive::ElsewhereUnseen)
        }
    }

    /// Whether no process or thread of this pid namespace has this pid, or only a zombie, which makes
    /// no call any more.
    pub fn has_ended(&self, pid: Pid) -> bool {
        let zombie = || Stat::read(&pid.to_string()).is_ok_and(|stat| stat.is_zombie());
        no_such_process(pid) || (self.proc_is_ours && zombie())
    }

    /// Whether a process that was seen has ended, as [`has_ended`](Self::has_ended) has it, or its pid
    /// belongs to another one by now.
    pub fn is_over(&self, seen: &Seen) -> bool {
        let other = || {
            let now = Seen::now(seen.pid).start_time;
            now.zip(seen.start_time).is_some_and(|(now, then)| now != then)
        };
        self.has_ended(seen.pid) || (self.proc_is_ours && other())
    }

    /// Whether a thread may wait in msgsnd or msgrcv on this queue. The queue's status does not tell:
    /// who waits has neither sent nor received yet. Root sees every thread of its pid namespace,
    /// others see theirs; who is out of sight is not found.
    pub fn may_be_waited_on(&self, queue: QueueId) -> bool {
        let waiting = self.waiting.get_or_init(proc::waiting);
        waiting.iter().any(|&on| on == Waiting::Somewhere || on == Waiting::On(queue.get()))
    }

    fn life_here(&self, owner: &OwnerId) -> Life {
        if no_such_process(Pid::from_raw(owner.pid)) {
            return Life::Dead(Dead::NoSuchProcess);
        }
        if !self.proc_is_ours {
            return Life::Alive(Alive::Unproven);
        }
        // Unreadable also when it died just now, or hides behind hidepid: no proof.
        let Ok(stat) = Stat::read(&owner.pid.to_string()) else {
            return Life::Alive(Alive::Unproven);
        };
        if !self.can_compare_start(owner) {
            Life::Alive(Alive::Unproven)
        } else if stat.start_time != owner.start_time {
            Life::Dead(Dead::PidReused)
        } else if stat.is_zombie() {
            Life::Dead(Dead::Zombie)
        } else {
            Life::Alive(Alive::Running)
        }
    }

    fn life_elsewhere(&self, owner: &OwnerId) -> Life {
        let Some(census) = self.census.get_or_init(Census::take) else {
            return Life::Alive(Alive::ElsewhereUnseen);
        };
        if census.may_hold(owner, self.can_compare_start(owner)) {
            Life::Alive(Alive::Running)
        } else {
            Life::Dead(Dead::NotInNamespace)
        }
    }

    /// Start times are told by the clock of the reader's time namespace: time_namespaces(7).
    fn can_compare_start(&self, owner: &OwnerId) -> bool {
        owner.start_time != 0 && owner.time_namespace == self.time_namespace
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether no process or thread of this pid namespace has this pid. Any other answer than `ESRCH`,
/// such as `EPERM`, means that there is one.
pub fn no_such_process(pid: Pid) -> bool {
    pid.as_raw() > 0 && kill(pid, None) == Err(Errno::ESRCH)
}

/// Every process of the machine, seen from the initial pid namespace, by its own pid namespace.
#[derive(Debug, Default)]
struct Census(HashMap<Option<u64>, Vec<Resident>>);

/// A process; None is what could not be read, and may be anything.
#[derive(Debug)]
struct Resident {
    pid_namespace: Option<u64>,
    inner_pid: Option<i32>,
    start_time: Option<u64>,
}

impl Census {
    /// `PROC_PID_INIT_INO` in linux/proc_ns.h: the same on every kernel.
    const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

    /// None where not every process is listed: this is not the initial pid namespace, or /proc is
    /// another's, or hides processes.
    ///
    /// A process that lives throughout is found: it keeps its pid, and /proc lists pids in order.
    fn take() -> Option<Self> {
        let here = proc::namespace("self", "pid").ok()?;
        if here != Self::INITIAL_PID_NAMESPACE || !proc::is_ours() || !proc::shows_everybody() {
            return None;
        }
        Self::of_all_listed().ok()
    }

    fn of_all_listed() -> io::Result<Self> {
        let processes = proc::processes()?;
        Ok(processes.iter().filter_map(|pid| Resident::read(pid)).collect())
    }

    fn may_hold(&self, owner: &OwnerId, compare_start: bool) -> bool {
        let homes = [Some(owner.pid_namespace), None];
        homes.iter().filter_map(|home| self.0.get(home)).flatten().any(|resident| {
            resident.inner_pid.is_none_or(|pid| pid == owner.pid)
                && (!compare_start || resident.start_time.is_none_or(|t| t == owner.start_time))
        })
    }
}

impl FromIterator<Resident> for Census {
    fn from_iter<T: IntoIterator<Item = Resident>>(residents: T) -> Self {
        let mut census = Self::default();
        for resident in residents {
            census.0.entry(resident.pid_namespace).or_default().push(resident);
        }
        census
    }
}

impl Resident {
    /// None for a process that has ended meanwhile.
    fn read(pid: &str) -> Option<Self> {
        let stat = known_or_gone(Stat::read(pid))?;
        if stat.is_some_and(|stat| stat.is_zombie()) {
            return None;
        }
        let ids = known_or_gone(proc::ids(pid))?.unwrap_or_default();
        // Another user's namespace may not be read (ptrace(2)), but a process with one pid only
        // cannot be in any namespace below this one.
        let above_all = (ids.len() == 1).then_some(Census::INITIAL_PID_NAMESPACE);
        Some(Self {
            pid_namespace: known_or_gone(proc::namespace(pid, "pid"))?.or(above_all),
            inner_pid: ids.last().copied(),
            start_time: stat.map(|stat| stat.start_time),
        })
    }
}

/// None: the process is gone. Some(None): it is there, but does not tell.
fn known_or_gone<T>(answer: io::Result<T>) -> Option<Option<T>> {
    match answer {
        Ok(value) => Some(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => None,
        Err(_) => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    const OWNER: OwnerId =
        OwnerId { pid: 7, start_time: 100, pid_namespace: 4_026_532_000, time_namespace: 1 };

    fn resident() -> Resident {
        Resident {
            pid_namespace: Some(OWNER.pid_namespace),
            inner_pid: Some(OWNER.pid),
            start_time: Some(OWNER.start_time),
        }
    }

    #[test]
    fn census_holds_an_owner_only_if_one_resident_matches_in_everything() {
        let others = [
            Resident { pid_namespace: Some(4_026_532_001), ..resident() },
            Resident { inner_pid: Some(8), ..resident() },
            Resident { start_time: Some(101), ..resident() },
        ];
        let census = Census::from_iter(others);
        assert!(!census.may_hold(&OWNER, true));
        assert!(census.may_hold(&OWNER, false), "times that cannot be compared say nothing");
        assert!(Census::from_iter([resident()]).may_hold(&OWNER, true));
        assert!(!Census::default().may_hold(&OWNER, false));
    }

    #[test]
    fn what_cannot_be_read_of_a_resident_may_be_the_owners() {
        for unread in [
            Resident { pid_namespace: None, ..resident() },
            Resident { inner_pid: None, ..resident() },
            Resident { start_time: None, ..resident() },
            Resident { pid_namespace: None, inner_pid: None, start_time: None },
        ] {
            assert!(Census::from_iter([unread]).may_hold(&OWNER, true));
        }
    }

    #[test]
    fn only_a_process_that_is_gone_is_left_out_of_the_census() {
        let told = |errno: Errno| known_or_gone::<()>(Err(errno.into()));
        assert_eq!(told(Errno::ENOENT), None);
        assert_eq!(told(Errno::ESRCH), None);
        for errno in [Errno::EACCES, Errno::EPERM, Errno::EMFILE, Errno::ENOMEM] {
            assert_eq!(told(errno), Some(None), "{errno}");
        }
    }

    #[test]
    fn census_finds_a_process_of_another_pid_namespace_by_its_number_in_there() {
        if !crate::sys::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let mut shell = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let parent = shell.id();
        let start = Instant::now();
        let inner = loop {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            let child = children.unwrap_or_default().trim().to_owned();
            if fs::read(format!("/proc/{child}/comm")).is_ok_and(|comm| comm == b"sleep\n") {
                break child;
            }
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(5));
        };
        let owner = OwnerId {
            pid: 1,
            start_time: Stat::read(&inner).unwrap().start_time,
            pid_namespace: proc::namespace(&inner, "pid").unwrap(),
            time_namespace: proc::namespace("self", "time").unwrap(),
        };
        let alive = Census::of_all_listed().unwrap();
        shell.kill().unwrap(); // and with it, by --kill-child, its child
        shell.wait().unwrap();
        while Stat::read(&inner).is_ok_and(|s| s.start_time == owner.start_time && !s.is_zombie()) {
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(5));
        }
        let dead = Census::of_all_listed().unwrap();
        assert!(alive.may_hold(&owner, true) && alive.may_hold(&owner, false));
        assert!(!alive.may_hold(&OwnerId { pid: 2, ..owner }, true));
        assert!(!alive.may_hold(&OwnerId { start_time: owner.start_time - 1, ..owner }, true));
        assert!(!dead.may_hold(&owner, true));
    }
}
