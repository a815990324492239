//! Alive or dead. A process counts as dead only if that is proven; a dead process stays dead.
//!
//! A lease names its owner by pid, start time and namespaces. Within our own pid namespace, an
//! owner is dead if `kill` does not know its pid, or if the process with that pid started at
//! another time. Processes of other pid namespaces can be judged only from the initial one, whose
//! /proc shows all of them.

use std::cell::OnceCell;

use nix::errno::Errno;
use sysv_ipc::{Pid, QueueId};

use super::census::Census;
use super::procfs::{self, Stat};
use super::queue_waiters::{self, Waiting};
use crate::sys::kill;
use crate::wire::OwnerId;

/// Whether a process is alive, and how that is known. Without a proof of death it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Alive(Alive),
    Dead(Dead),
}

/// Makes an enum of reasons, whose `Display` and docs have the words of each.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $reason:ident $(($inner:ident: $type:ty))? = $words:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = concat!("“", $words, "”.")] $(#[$variant_doc])* $reason $(($type))?,)+
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
        Running = "owner is running",
        /// Nothing tells whether it is the same process.
        Unproven = "a process has the owner's pid",
        Unidentified = "owner not identified by its lease",
        /// It cannot be seen from here.
        ElsewhereUnseen = "owner is in another pid namespace",
    }
}

reasons! {
    /// What proves a process dead.
    Dead {
        /// No process has its pid (`ESRCH`).
        NoSuchProcess = "owner is gone",
        PidReused = "owner is gone, its pid reused",
        /// Its parent has not waited for it yet.
        Zombie = "owner has ended",
        NotInNamespace = "owner is gone from its pid namespace",
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
    pub fn here() -> Self {
        Self {
            pid_namespace: procfs::own_pid_namespace(),
            time_namespace: procfs::namespace("self", "time").unwrap_or(0),
            proc_is_ours: procfs::is_ours(),
            census: OnceCell::new(),
            waits: OnceCell::new(),
        }
    }

    pub fn life_of(&self, owner: &OwnerId) -> Life {
        match self.life_nearby(owner) {
            Life::Alive(Alive::ElsewhereUnseen) => self.life_elsewhere(owner),
            life => life,
        }
    }

    /// Like [`life_of`](Self::life_of), but never takes a census, which takes time for each process
    /// of the machine. An owner in another pid namespace counts as alive.
    pub fn life_nearby(&self, owner: &OwnerId) -> Life {
        if owner.pid <= 0 {
            Life::Alive(Alive::Unidentified)
        } else if owner.pid_namespace == 0 || owner.pid_namespace != self.pid_namespace {
            Life::Alive(Alive::ElsewhereUnseen)
        } else {
            self.life_here(owner)
        }
    }

    /// Whether no process or thread here has this pid, or only a zombie, which makes no more calls.
    pub fn has_ended(&self, pid: Pid) -> bool {
        no_such_process(pid) || self.stat(pid).is_some_and(|stat| stat.is_zombie())
    }

    /// The identity of the process of this pid namespace that has this pid now.
    pub fn identify(&self, pid: Pid) -> OwnerId {
        OwnerId {
            pid: pid.as_raw(),
            start_time: self.stat(pid).map_or(0, |stat| stat.start_time),
            pid_namespace: self.pid_namespace,
            time_namespace: self.time_namespace,
        }
    }

    /// Whether a thread may be waiting in msgsnd or msgrcv on this queue. It finds only threads
    /// that this process can see: root sees every thread of its pid namespace, other users see
    /// their own.
    pub fn may_be_waited_on(&self, queue: QueueId) -> bool {
        let waits = self.waits.get_or_init(queue_waiters::waiting);
        waits.iter().any(|&on| on == Waiting::Somewhere || on == Waiting::On(queue.get()))
    }

    /// Whether an owner in this pid namespace is alive.
    pub fn life_here(&self, owner: &OwnerId) -> Life {
        let pid = Pid::from_raw(owner.pid);
        if no_such_process(pid) {
            return Life::Dead(Dead::NoSuchProcess);
        }
        let Some(stat) = self.stat(pid) else { return Life::Alive(Alive::Unproven) };
        match (self.can_compare_start(owner), stat.start_time == owner.start_time) {
            (true, false) => Life::Dead(Dead::PidReused),
            _ if stat.is_zombie() => Life::Dead(Dead::Zombie),
            (true, true) => Life::Alive(Alive::Running),
            (false, _) => Life::Alive(Alive::Unproven),
        }
    }

    fn life_elsewhere(&self, owner: &OwnerId) -> Life {
        let by_start_time = self.can_compare_start(owner);
        let holds = |census: &Census| census.may_hold(owner, by_start_time);
        match self.census.get_or_init(Census::take).as_ref().map(holds) {
            None if owner.pid_namespace == 0 => Life::Alive(Alive::Unidentified),
            None => Life::Alive(Alive::ElsewhereUnseen),
            Some(true) if by_start_time => Life::Alive(Alive::Running),
            Some(true) => Life::Alive(Alive::Unproven),
            Some(false) => Life::Dead(Dead::NotInNamespace),
        }
    }

    /// None proves nothing: it died just now, `hidepid` hides it, or it cannot be read.
    fn stat(&self, pid: Pid) -> Option<Stat> {
        let pid = self.proc_is_ours.then(|| pid.to_string())?;
        procfs::in_time(&pid, Stat::read)?.ok()
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
