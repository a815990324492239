//! The groups of a caller: those of the process that sent the lease, as the kernel knows them.
//!
//! A group database would return groups that the process has dropped, and the queue's record
//! (`cgid`) outlives a group that was revoked.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use sysv_ipc::Gid;

use crate::ownership::procfs::{self, Stat, numbers};
use crate::server::admission::{Admitted, Caller, ReplyTo};
use crate::sys::{credentials, geteuid};

/// Finds the groups of callers.
pub(crate) struct GroupFinder {
    /// Whether a pid names the same process in /proc and in a queue's status.
    proc_is_ours: bool,
    overflow_gid: Gid,
    unknown_gid: Option<Gid>,
}

pub(crate) struct CallerGroups {
    pub(super) gid: Gid,
    pub(super) supplementary: Vec<Gid>,
    /// Why the caller's groups are unknown. Then the child takes none.
    pub(crate) unknown: Option<UnknownGroups>,
}

/// Why a caller's groups are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownGroups {
    #[error("a plain request")]
    Plain,
    #[error("its process is in a pid namespace that is not shown")]
    PidNamespace,
    #[error("/proc shows another pid namespace")]
    ForeignProc,
    #[error("the reply queue is gone")]
    QueueGone,
    #[error("the reply queue has been used for more than the lease")]
    QueueUsed,
    #[error("the process that sent the lease has ended, or /proc hides it")]
    SenderGone,
    #[error("the process that sent the lease has other user ids by now")]
    OtherUids,
}

impl UnknownGroups {
    /// Whether the caller may have hidden its groups, to read a file that is closed to one of them
    /// and open to everybody else.
    pub(crate) fn may_be_hidden(self) -> bool {
        !matches!(self, Self::Plain | Self::PidNamespace | Self::ForeignProc)
    }
}

/// /proc does not show the process, or shows it no longer.
impl From<io::Error> for UnknownGroups {
    fn from(_: io::Error) -> Self {
        Self::SenderGone
    }
}

impl GroupFinder {
    /// None: the server is not root's. Warns if it cannot see its callers' processes.
    pub(crate) fn of_root() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let proc_is_ours = procfs::is_ours();
        if !proc_is_ours {
            tracing::warn!("/proc shows another pid namespace, so callers get no groups");
        }
        let (overflow_gid, unknown_gid) = (credentials::overflow_gid(), credentials::unknown_gid());
        Some(Self { proc_is_ours, overflow_gid, unknown_gid })
    }

    /// None: the caller is root, and this process keeps its user.
    pub(crate) fn find(&self, request: &Admitted<'_>) -> Option<CallerGroups> {
        if request.caller.uid.is_root() {
            return None;
        }
        let found = self.groups_of_sender(&request.reply, request.caller);
        Some(found.unwrap_or_else(|unknown| CallerGroups {
            gid: self.overflow_gid,
            supplementary: Vec::new(),
            unknown: Some(unknown),
        }))
    }

    fn groups_of_sender(
        &self,
        reply: &ReplyTo,
        caller: Caller,
    ) -> Result<CallerGroups, UnknownGroups> {
        if reply.cookie.is_none() {
            return Err(UnknownGroups::Plain);
        }
        let status = reply.queue.status().map_err(|_| UnknownGroups::QueueGone)?;
        // Admission saw the lease at the head. If it is still the only message, and nobody has
        // received any, then no other message was ever sent: the last sender sent the lease.
        let untouched = status.messages == 1 && status.received_at.is_none();
        let sent_at = status.sent_at.filter(|_| untouched).ok_or(UnknownGroups::QueueUsed)?;
        let sender = status.last_sender.ok_or(UnknownGroups::PidNamespace)?;
        if !self.proc_is_ours {
            return Err(UnknownGroups::ForeignProc);
        }
        // Once the process has ended, its open directory shows nothing, not even of a reused pid.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&*format!("/proc/{sender}"), flags, Mode::empty());
        let directory = directory.map_err(io::Error::from)?;
        let file = |name: &str| -> io::Result<File> {
            Ok(openat(&directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.into())
        };
        if started(&Stat::read_from(file("stat")?)?) > latest_boot_time(sent_at)? {
            return Err(UnknownGroups::SenderGone); // its pid was reused
        }
        // It is longer for a process with many groups: proc_pid_status(5).
        let mut status = Vec::with_capacity(4096);
        file("status")?.take(1 << 20).read_to_end(&mut status)?;
        // Real, effective, saved and file system ids.
        if numbers::<u32>(&status, "Uid:") != [caller.uid.as_raw(); 4] {
            return Err(UnknownGroups::OtherUids);
        }
        // The effective gid may come from a set-group-ID program, and so may the real gid, if it
        // executed one since. So the real gid counts only if the queue was made with it.
        let real = numbers(&status, "Gid:").first() == Some(&caller.gid.as_raw());
        let gid = if real { caller.gid } else { self.overflow_gid };
        let groups = numbers(&status, "Groups:").into_iter().map(Gid::from_raw);
        let supplementary = groups.filter(|&gid| Some(gid) != self.unknown_gid).collect();
        Ok(CallerGroups { gid, supplementary, unknown: None })
    }
}

/// The time from boot to the start of a process, rounded down.
fn started(process: &Stat) -> Duration {
    /// `USER_HZ` of every architecture that Rust supports: time(7).
    const TICKS_PER_SECOND: u64 = 100;
    Duration::from_millis(1000 / TICKS_PER_SECOND * process.start_time)
}

/// The latest time since boot at which the kernel can have noted this time in a queue's status.
fn latest_boot_time(noted: SystemTime) -> io::Result<Duration> {
    /// The kernel notes whole seconds, by a clock that may be a tick late.
    const RESOLUTION: Duration = Duration::from_millis(1_010);
    let age = SystemTime::now().duration_since(noted).unwrap_or_default();
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok((now + RESOLUTION).saturating_sub(age))
}
