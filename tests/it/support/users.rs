//! Other users: what they try with system calls of their own, and a server that all of them may ask.

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::fork_child;
use mqfs::ownership::lease::{self, Head};
use mqfs::sys::exit_now;
use mqfs::wire::{
    Cookie, Extension, LEASE_TYPE, Lease, NORMAL_PRIORITY, Operation, REPLY_QUEUE_MODE, Range,
    Request,
};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use sysv_ipc::{Key, MessageBuffer, Queue, QueueSettings, QueueStatus, ReceiveError, SendError};
use tempfile::TempDir;

use super::{
    ForEverybody, Server, Stuck, exists, noise, queue_of, reply_queues, run, unique_key, wait_until,
};

/// Users who have nothing to do with each other.
pub const ATTACKER: u32 = 64_160;
pub const VICTIM: u32 = 64_161;
/// Whose a server is that is not root's.
pub const OPERATOR: u32 = 64_162;

/// A process of another user, killed when the test ends before it does.
#[derive(Debug)]
pub struct Attack {
    pid: Pid,
    outcome: Option<Result<(), Errno>>,
}

impl Attack {
    /// Begins a user's system calls, up to the first that fails.
    pub fn start(uid: u32, calls: impl FnOnce() -> Result<(), Errno>) -> Self {
        let child = fork_child(|| {
            become_other(uid);
            exit_now(calls().map_or_else(|errno| errno as i32, |()| 0))
        });
        Self { pid: child.unwrap(), outcome: None }
    }

    /// Its outcome, if it has ended.
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

    /// Waits for its end.
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

#[allow(unsafe_code)]
fn become_other(uid: u32) {
    // SAFETY: closes what this child inherited and nothing here uses; close_range(2). Other tests
    // wait for the ends of pipes.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[]).unwrap();
    setresgid(group, group, group).unwrap();
    setresuid(user, user, user).unwrap();
    set_pdeathsig(Signal::SIGKILL).unwrap(); // a change of uid clears it
}

/// `msgctl(IPC_STAT)` and nothing else: [`Queue::status`] knows a way without permission.
#[allow(unsafe_code)]
pub fn stat(queue: Queue) -> Result<(), Errno> {
    let mut status = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: status is a msqid_ds for IPC_STAT to fill in; msgctl(2).
    let done = unsafe { libc::msgctl(queue.id().get(), libc::IPC_STAT, status.as_mut_ptr()) };
    Errno::result(done).map(drop)
}

/// `msgctl(IPC_SET)` and nothing else: [`Queue::set`] looks first, which takes permission.
#[allow(unsafe_code)]
pub fn set(queue: Queue, settings: &QueueSettings) -> Result<(), Errno> {
    let zero = MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: integers only, of which zero is one.
    let mut status = unsafe { zero.assume_init() };
    status.msg_perm.uid = settings.uid.as_raw();
    status.msg_perm.gid = settings.gid.as_raw();
    status.msg_perm.mode = settings.mode.bits() as _;
    status.msg_qbytes = settings.max_bytes;
    // SAFETY: IPC_SET reads a msqid_ds, which outlives the call; msgctl(2).
    let done = unsafe { libc::msgctl(queue.id().get(), libc::IPC_SET, &raw mut status) };
    Errno::result(done).map(drop)
}

pub fn sent(outcome: Result<(), SendError>) -> Result<(), Errno> {
    outcome.map_err(|error| match error {
        SendError::Os(error) => crate::support::errno_of(error),
        SendError::Full => Errno::EAGAIN,
        SendError::Interrupted => Errno::EINTR,
        _ => Errno::EINVAL,
    })
}

pub fn received(outcome: Result<(), ReceiveError>) -> Result<(), Errno> {
    outcome.map_err(|error| match error {
        ReceiveError::Os(error) => crate::support::errno_of(error),
        ReceiveError::Empty => Errno::ENOMSG,
        ReceiveError::TooBig => Errno::E2BIG,
        ReceiveError::Interrupted => Errno::EINTR,
        _ => Errno::EINVAL,
    })
}

/// A request for a whole file, as `mqfs-client` makes it.
pub fn request(reply: Queue, path: &str, cookie: Cookie) -> MessageBuffer {
    let operation = Operation::Fetch(Range::WHOLE);
    let extension = Some(Extension { cookie, operation });
    let request = Request { reply_queue: reply.id(), path: path.as_ref(), extension };
    MessageBuffer::with_text(NORMAL_PRIORITY, &request.encode())
}

/// A request as the book has it.
pub fn plain_request(reply: Queue, path: &str) -> MessageBuffer {
    let request = Request { reply_queue: reply.id(), path: path.as_ref(), extension: None };
    MessageBuffer::with_text(NORMAL_PRIORITY, &request.encode())
}

/// The lease at the head of a queue, which root may read.
#[track_caller]
pub fn lease_of(queue: Queue) -> Lease {
    match lease::peek(queue) {
        Head::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// A user's reply queue as `mqfs-client` makes it, before anything comes. Removed at the end.
#[derive(Debug)]
pub struct Idle {
    pub queue: Queue,
    pub lease: Lease,
    made: QueueStatus,
}

impl Idle {
    /// A queue of this user, handed over to that one, which may be the same; for a request there.
    #[track_caller]
    pub fn new(requests: Queue, uid: u32, handed_to: u32) -> Self {
        let lease = lease::new(requests.id()).unwrap(); // in the name of the test, which lives
        let before = reply_queues();
        let made = as_user(uid, || {
            let queue =
                Queue::create(Key::PRIVATE, REPLY_QUEUE_MODE).map_err(crate::support::errno_of)?;
            sent(queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease.encode())))?;
            let settings = queue.status().map_err(crate::support::errno_of)?.settings();
            set(queue, &QueueSettings { uid: sysv_ipc::Uid::from_raw(handed_to), ..settings })
        });
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
        // The id may be somebody else's by now.
        if lease::peek(self.queue) == Head::Lease(self.lease) {
            let _ = self.queue.remove();
        }
    }
}

/// A server that everybody may ask, and below its root `/file`, which no queue holds.
#[derive(Debug)]
pub struct Site {
    pub server: Server,
    pub programs: ForEverybody,
    pub file: Vec<u8>,
    uid: u32,
    folder: TempDir,
}

impl Site {
    /// Root's server.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(0, arguments)
    }

    /// A server of this user.
    #[track_caller]
    pub fn start_as(uid: u32, arguments: &[&str]) -> Self {
        Self::start_on(unique_key(), uid, arguments)
    }

    /// A server of this user, under this key.
    #[track_caller]
    pub fn start_on(key: Key, uid: u32, arguments: &[&str]) -> Self {
        Self::start_by(key, uid, arguments, |server| server)
    }

    /// A server of this user, under this key, started by another command.
    #[track_caller]
    pub fn start_by(
        key: Key,
        uid: u32,
        arguments: &[&str],
        by: impl FnOnce(Command) -> Command,
    ) -> Self {
        let (programs, folder) = (ForEverybody::new(), public_folder());
        let file = noise(1 << 20);
        fs::write(folder.path().join("file"), &file).unwrap();
        let mut command = programs.server(key, uid);
        command.args(["--mode", "0622"]).args(arguments).arg("--root").arg(folder.path());
        let server = Server::start_as(key, &mut by(command));
        Self { server, programs, file, uid, folder }
    }

    pub fn requests(&self) -> Queue {
        queue_of(self.server.key).unwrap()
    }

    /// What stands below the root.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file below the root.
    #[track_caller]
    pub fn put(&self, name: &str, mode: u32, owner: (u32, u32), content: &str) {
        let path = self.at(name);
        fs::write(&path, content).unwrap();
        chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    /// A user's client, to be told what to fetch.
    pub fn client(&self, uid: u32) -> Command {
        let mut command = self.programs.client(self.server.key, uid);
        command.args(["--server-uid", &self.uid.to_string()]);
        command
    }

    /// The victim asks for the file, to be started.
    pub fn victim(&self) -> Command {
        let mut command = self.client(VICTIM);
        command.arg("/file");
        command
    }

    /// The victim's transfer, under way.
    #[track_caller]
    pub fn stuck_victim(&self) -> Stuck {
        Stuck::start(&mut self.victim())
    }

    #[track_caller]
    pub fn finish_intact(&self, victim: Stuck) {
        let queue = victim.queue;
        assert!(victim.finish() == self.file, "the victim's file is not what it was");
        assert!(!exists(queue), "a queue is left");
    }

    #[track_caller]
    pub fn fetch_intact(&self) {
        assert!(run(&mut self.victim()).success() == self.file, "the file is not what it was");
    }

    /// What the client of this user says after the path's name, which is not served.
    #[track_caller]
    pub fn denied(&self, uid: u32, path: &str) -> String {
        let denied = run(self.client(uid).arg(path));
        assert_eq!(denied.code(), Some(1), "{path}: {}", denied.stderr);
        assert_eq!(denied.stdout, b"", "{path}");
        let line = denied.stderr.strip_prefix(&format!("mqfs-client: {path}: "));
        line.unwrap_or(&denied.stderr).trim_end().to_owned()
    }

    /// Fails the test unless the server lives, serves, has no child left, and ends well.
    #[track_caller]
    pub fn stop(self) {
        self.fetch_intact();
        wait_until("its children end", || self.server.children().is_empty());
        self.server.stop();
    }
}

/// A folder that everybody may look into.
pub fn public_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// How many requests a server has refused for this reason, as far as it has told.
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

/// Waits until a server has told of so many refusals. It tells of each reason once a second, with the
/// next request that is refused for it: so `again` makes one.
#[track_caller]
pub fn wait_for_refusals(server: &Server, reason: &str, count: u64, mut again: impl FnMut()) {
    wait_until("the log counts the refusals", || {
        again();
        refusals(server, reason) >= count
    });
}

/// A user's client that is not answered, stopped by its timeout.
#[track_caller]
pub fn unanswered(command: &mut Command) {
    let command = command.args(["--timeout", "300ms"]).stdin(Stdio::null());
    let unanswered = run(command);
    assert_eq!(unanswered.code(), Some(1), "{}", unanswered.stderr);
    assert_eq!(unanswered.stdout, b"");
    assert!(unanswered.stderr.contains("timed out"), "{}", unanswered.stderr);
}
