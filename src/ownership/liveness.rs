//! Alive or dead. A process counts as dead only if that is proven; a dead process stays dead.
//!
//! A lease names its owner by pid, start time and namespaces. Within our own pid namespace, two
//! things prove that an owner is dead: `kill` does not know its pid, or the process with that pid
//! started at another time. Processes of other pid namespaces can be judged only from the initial
//! one, whose /proc shows all of them.

use std::cell::OnceCell;

use nix::errno::Errno;
use sysv_ipc::{Pid, QueueId};

use super::census::Census;
use super::procfs::{self, Stat};
use super::queue_waiters::{self, Waiting};
use crate::sys::kill;
use crate::wire::OwnerId;

/// Whether a process is alive, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is alive, or nothing proves that it is dead.
    Alive(Alive),
    /// It is proven dead.
    Dead(Dead),
}

/// Makes an enum of reasons, and its `Display` of the words of each.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $reason:ident $(($inner:ident: $type:ty))? = $words:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $reason $(($type))?,)+
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$reason $(($inner))? => write!(f, $words),)+
                }
            }
        }
    };
}
pub(crate) use reasons;

reasons! {
    /// Why a process counts as alive.
    Alive {
        /// The process exists.
        Running = "owner is running",
        /// A process has its pid; /proc does not tell whether it is the same one.
        Unproven = "a process has the owner's pid",
        /// It is in a pid namespace that cannot be seen from here.
        ElsewhereUnseen = "owner is in another pid namespace",
    }
}

reasons! {
    /// What proves a process dead.
    Dead {
        /// No process has its pid (`ESRCH`).
        NoSuchProcess = "owner is gone",
        /// Its pid belongs to a process that started at another time.
        PidReused = "owner is gone, its pid reused",
        /// It has ended; its parent has not waited for it yet.
        Zombie = "owner has ended",
        /// No process of its pid namespace has its pid and start time.
        NotInNamespace = "owner is gone from its pid namespace",
    }
}

/// A process of this pid namespace that was seen once, and can be recognized later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pid: Pid,
    /// None where /proc does not tell.
    start_time: Option<u64>,
}

impl Seen {
    /// The process that has this pid now.
    pub fn now(pid: Pid) -> Self {
        let start_time = Stat::read(&pid.to_string()).ok().map(|stat| stat.start_time);
        Self { pid, start_time }
    }
}

/// Judges whether processes are alive.
///
/// Make it *after* you have read the [`OwnerId`]s that you ask about. It looks at some things once
/// and keeps the result; an owner that started after that look would count as dead.
#[derive(Debug)]
pub struct Observer {
    pid_namespace: u64,
    time_namespace: u64,
    proc_is_ours: bool,
    census: OnceCell<Option<Census>>,
    waits: OnceCell<Vec<Waiting>>,
}

impl Observer {
    /// An observer in this process's namespaces.
    pub fn here() -> Self {
        Self {
            pid_namespace: procfs::namespace("self", "pid").unwrap_or(0),
            time_namespace: procfs::namespace("self", "time").unwrap_or(0),
            proc_is_ours: procfs::is_ours(),
            census: OnceCell::new(),
            waits: OnceCell::new(),
        }
    }

    /// Whether this process is alive.
    pub fn life_of(&self, owner: &OwnerId) -> Life {
        if owner.pid <= 0 || owner.pid_namespace == 0 {
            Life::Alive(Alive::Unproven)
        } else if owner.pid_namespace == self.pid_namespace {
            self.life_here(owner)
        } else {
            self.life_elsewhere(owner)
        }
    }

    /// Like [`life_of`](Self::life_of), but never takes a census, which takes time for each process
    /// of the machine. An owner in another pid namespace counts as alive.
    pub fn life_nearby(&self, owner: &OwnerId) -> Life {
        if owner.pid_namespace == self.pid_namespace {
            self.life_of(owner)
        } else {
            Life::Alive(Alive::ElsewhereUnseen)
        }
    }

    /// Whether no process or thread of this pid namespace has this pid, or only a zombie, which
    /// makes no more system calls.
    pub fn has_ended(&self, pid: Pid) -> bool {
        let zombie = || Stat::read(&pid.to_string()).is_ok_and(|stat| stat.is_zombie());
        no_such_process(pid) || (self.proc_is_ours && zombie())
    }

    /// Whether a process that was seen has ended, as in [`has_ended`](Self::has_ended), or its pid
    /// now belongs to another process.
    pub fn is_over(&self, seen: &Seen) -> bool {
        let other = || {
            let now = Seen::now(seen.pid).start_time;
            now.zip(seen.start_time).is_some_and(|(now, then)| now != then)
        };
        self.has_ended(seen.pid) || (self.proc_is_ours && other())
    }

    /// Whether a thread may be waiting in msgsnd or msgrcv on this queue. It finds only threads
    /// that this process can see: root sees every thread of its pid namespace, other users see
    /// their own.
    pub fn may_be_waited_on(&self, queue: QueueId) -> bool {
        let waits = self.waits.get_or_init(queue_waiters::waiting);
        waits.iter().any(|&on| on == Waiting::Somewhere || on == Waiting::On(queue.get()))
    }

    fn life_here(&self, owner: &OwnerId) -> Life {
        if no_such_process(Pid::from_raw(owner.pid)) {
            return Life::Dead(Dead::NoSuchProcess);
        }
        if !self.proc_is_ours {
            return Life::Alive(Alive::Unproven);
        }
        // Unreadable: it died just now, or hidepid hides it. That proves nothing.
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

    /// /proc shows start times by the clock of the reader's time namespace: time_namespaces(7).
    fn can_compare_start(&self, owner: &OwnerId) -> bool {
        owner.start_time != 0 && owner.time_namespace == self.time_namespace
    }
}

/// Whether no process or thread of this pid namespace has this pid (`ESRCH`). Any other error, such
/// as `EPERM`, means that one exists.
pub fn no_such_process(pid: Pid) -> bool {
    pid.as_raw() > 0 && kill(pid, None) == Err(Errno::ESRCH)
}
