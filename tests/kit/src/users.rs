//! Other users: their system calls, and what a server says of their requests.

use std::mem::MaybeUninit;
use std::process::{Command, Stdio};

use mqfs::ownership::lease::{self, Head};
use mqfs::sys::exit_now;
use mqfs::wire::{Cookie, Extension, Lease, NORMAL_PRIORITY, Operation, Question, Range, Request};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use sysv_ipc::{MessageBuffer, Queue, QueueSettings, QueueStatus, ReceiveError, SendError};

use crate::{Server, errno_of, find_lease, fork_child, marked_with, reply_queues, run, wait_until};

/// Unrelated users.
pub const ATTACKER: u32 = 64_160;
pub const VICTIM: u32 = 64_161;
/// The user of a server that is not root's.
pub const OPERATOR: u32 = 64_162;

/// A process of another user. Ends with its handle.
#[derive(Debug)]
pub struct Attack {
    pid: Pid,
    outcome: Option<Result<(), Errno>>,
}

impl Attack {
    /// Starts a user's system calls, up to the first that fails.
    pub fn start(uid: u32, calls: impl FnOnce() -> Result<(), Errno>) -> Self {
        let child = fork_child(|| {
            become_other(uid);
            exit_now(calls().map_or_else(|errno| errno as i32, |()| 0))
        });
        Self { pid: child.unwrap(), outcome: None }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    #[track_caller]
    fn poll(&mut self) -> Option<Result<(), Errno>> {
        if self.outcome.is_none() {
            self.outcome = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive => None,
                WaitStatus::Exited(_, 0) => Some(Ok(())),
                WaitStatus::Exited(_, 70) => panic!("it panicked: see fork_child"),
                WaitStatus::Exited(_, errno) => Some(Err(Errno::from_raw(errno))),
                other => panic!("{other:?}"),
            };
        }
        self.outcome
    }

    #[track_caller]
    pub fn goes_on(&mut self) -> bool {
        self.poll().is_none()
    }

    #[track_caller]
    pub fn finish(mut self) -> Result<(), Errno> {
        wait_until("the attack ends", || !self.goes_on());
        self.outcome.unwrap()
    }

    /// Ends it, and fails the test if a call had failed before.
    #[track_caller]
    pub fn stop(&mut self) {
        assert_eq!(self.poll(), None, "it ended by itself");
        self.end();
    }

    fn end(&mut self) {
        if self.outcome.is_none() {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
            self.outcome = Some(Err(Errno::EINTR));
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.end();
    }
}

/// The errno of the first of a user's system calls that failed.
#[track_caller]
pub fn as_user(uid: u32, calls: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    Attack::start(uid, calls).finish()
}

/// Closes what a forked child inherited: other tests wait for the end of pipes.
#[allow(unsafe_code)]
pub fn close_inherited() {
    // SAFETY: nothing in this child uses the descriptors that this closes; close_range(2).
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

fn become_other(uid: u32) {
    close_inherited();
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[]).unwrap();
    setresgid(group, group, group).unwrap();
    setresuid(user, user, user).unwrap();
    set_pdeathsig(Signal::SIGKILL).unwrap(); // a change of uid clears it
}

/// `msgctl(IPC_STAT)` alone; [`Queue::status`] also tries a way that needs no permission.
#[allow(unsafe_code)]
pub fn stat(queue: Queue) -> Result<(), Errno> {
    let mut status = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: status is a msqid_ds for IPC_STAT to fill in; msgctl(2).
    let done = unsafe { libc::msgctl(queue.id().get(), libc::IPC_STAT, status.as_mut_ptr()) };
    Errno::result(done).map(drop)
}

/// `msgctl(IPC_SET)` alone; [`Queue::set`] first reads the status, which needs permission.
#[allow(unsafe_code)]
pub fn set(queue: Queue, settings: &QueueSettings) -> Result<(), Errno> {
    let zero = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: msqid_ds holds only integers, for which zero is valid.
    let mut status = unsafe { zero.assume_init() };
    status.msg_perm.uid = settings.uid.as_raw();
    status.msg_perm.gid = settings.gid.as_raw();
    status.msg_perm.mode = settings.mode.bits() as _;
    status.msg_qbytes = settings.max_bytes;
    // SAFETY: IPC_SET reads a msqid_ds, which outlives the call; msgctl(2).
    let done = unsafe { libc::msgctl(queue.id().get(), libc::IPC_SET, &raw mut status) };
    Errno::result(done).map(drop)
}

/// Changes settings of a queue, as its creator or owner may.
pub fn change(queue: Queue, change: impl FnOnce(&mut QueueSettings)) -> Result<(), Errno> {
    let mut settings = queue.status().map_err(errno_of)?.settings();
    change(&mut settings);
    set(queue, &settings)
}

/// Gives a queue to another user, who did not make it.
pub fn give(queue: Queue, uid: u32) -> Result<(), Errno> {
    change(queue, |to| to.uid = sysv_ipc::Uid::from_raw(uid))
}

pub fn sent(outcome: Result<(), SendError>) -> Result<(), Errno> {
    outcome.map_err(|error| match error {
        SendError::Os(error) => errno_of(error),
        SendError::Full => Errno::EAGAIN,
        SendError::Interrupted => Errno::EINTR,
        _ => Errno::EINVAL,
    })
}

pub fn received(outcome: Result<(), ReceiveError>) -> Result<(), Errno> {
    outcome.map_err(|error| match error {
        ReceiveError::Os(error) => errno_of(error),
        ReceiveError::Empty => Errno::ENOMSG,
        ReceiveError::TooBig => Errno::E2BIG,
        ReceiveError::Interrupted => Errno::EINTR,
        _ => Errno::EINVAL,
    })
}

/// A request for a whole file, as `mqfs-client` makes it.
pub fn request(reply: Queue, path: &str, cookie: Cookie) -> MessageBuffer {
    whole_file(reply, path, Some(extension(cookie)))
}

/// The part of a request that tells its cookie, and allows nothing.
pub fn extension(cookie: Cookie) -> Extension {
    let (session, windows, extents, unknown_version) = (false, false, false, None);
    Extension { cookie, session, windows, extents, unknown_version }
}

pub fn plain_request(reply: Queue, path: &str) -> MessageBuffer {
    whole_file(reply, path, None)
}

fn whole_file(reply: Queue, path: &str, extension: Option<Extension>) -> MessageBuffer {
    let question = Question::new(path.as_ref(), Operation::Fetch(Range::WHOLE));
    let request = Request { reply_queue: reply.id(), question, extension };
    MessageBuffer::with_text(NORMAL_PRIORITY, &request.encode())
}

/// The lease at the head of a queue, which root may read.
#[track_caller]
pub fn lease_of(queue: Queue) -> Lease {
    find_lease(queue).expect("a lease")
}

/// A user's reply queue as `mqfs-client` makes it, before any reply. Removed with its handle.
#[derive(Debug)]
pub struct Idle {
    pub queue: Queue,
    pub lease: Lease,
    made: QueueStatus,
}

impl Idle {
    /// A queue that `uid` makes and hands over to `handed_to`, for a request to `requests`.
    #[track_caller]
    pub fn new(requests: Queue, uid: u32, handed_to: u32) -> Self {
        let lease = lease::new(requests.id()).unwrap(); // in the name of the test, which lives
        let before = reply_queues();
        let made = as_user(uid, || give(marked_with(&lease.encode()).release(), handed_to));
        assert_eq!(made, Ok(()));
        let queue = reply_queues().into_iter().find(|queue| !before.contains(queue)).unwrap();
        Self { queue, lease, made: queue.status().unwrap() }
    }

    /// Fails the test if anybody has sent to it, taken from it or changed it.
    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(self.queue.status().unwrap(), self.made);
        assert_eq!(lease_of(self.queue), self.lease);
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // The id may belong to another queue by now.
        if lease::peek(self.queue) == Head::Lease(self.lease) {
            let _ = self.queue.remove();
        }
    }
}

/// How many requests a server has refused for this reason, according to its log so far.
#[track_caller]
pub fn refusals(server: &Server, reason: &str) -> u64 {
    let log = server.log();
    let (log, _) = log.rsplit_once('\n').unwrap_or_default(); // the last line may be half written
    let number = |line: &str, field: &str| -> u64 {
        let rest = line.split(field).nth(1).unwrap();
        rest.split(' ').next().unwrap().trim().parse().unwrap()
    };
    let reason = format!("refused reason=\"{reason}\"");
    let told: Vec<_> = log.lines().filter(|line| line.contains(&reason)).collect();
    let sum = told.iter().map(|line| number(line, "requests=")).sum();
    let total = told.last().map_or(0, |line| number(line, "total="));
    assert_eq!(sum, total, "{log}");
    sum
}

/// Runs a client whose request gets no answer, until its timeout.
#[track_caller]
pub fn unanswered(command: &mut Command) {
    let command = command.args(["--timeout", "300ms"]).stdin(Stdio::null());
    let unanswered = run(command);
    assert_eq!(unanswered.code(), Some(1), "{}", unanswered.stderr);
    assert_eq!(unanswered.stdout, b"");
    assert!(unanswered.stderr.contains("timed out"), "{}", unanswered.stderr);
}
