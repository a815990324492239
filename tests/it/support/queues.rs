//! Queues made by hand, processes to own them, and what `mqfs-reap` says of them.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::fork_child;
use mqfs::sys::exit_now;
use mqfs::wire::{Cookie, LEASE_TYPE, Lease, OwnerId, REPLY_QUEUE_MODE};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer, Mode, OwnedQueue, Queue, QueueId};
use tempfile::TempDir;

use super::{
    Running, Server, all_queues, children_of, in_own_namespace, noise, program, run, state_of,
    wait_until,
};

/// What `mqfs-reap --json` said and did.
#[derive(Debug)]
pub struct Verdicts(pub Vec<Value>);

impl Verdicts {
    #[track_caller]
    pub fn now() -> Self {
        Self::of(program("mqfs-reap").arg("--json"))
    }

    /// Of any command that ends up as `mqfs-reap --json`.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let text = String::from_utf8(run(command).success()).unwrap();
        Self(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Verdict, reason and action.
    #[track_caller]
    pub fn on(&self, queue: Queue) -> [&str; 3] {
        let row = self.0.iter().find(|row| row["id"] == queue.id().get());
        let row = row.unwrap_or_else(|| panic!("queue {} is not listed", queue.id()));
        ["verdict", "reason", "action"].map(|field| row[field].as_str().unwrap())
    }

    /// The queues that were removed, in order.
    pub fn removed(&self) -> Vec<QueueId> {
        let rows = self.0.iter().filter(|row| row["action"] == "removed");
        let mut ids: Vec<_> =
            rows.map(|row| QueueId::new(row["id"].as_i64().unwrap() as i32)).collect();
        ids.sort_unstable();
        ids
    }
}

pub fn exists(queue: Queue) -> bool {
    queue.status().is_ok()
}

/// The reply queues that can be seen from here.
pub fn reply_queues() -> Vec<Queue> {
    let marked = |mode: Mode, key: Key| mode == REPLY_QUEUE_MODE && key.is_private();
    all_queues()
        .into_iter()
        .filter(|(_, s)| marked(s.permissions.mode, s.permissions.key))
        .map(|(q, _)| q)
        .collect()
}

/// A reply queue with a lease in the name of `owner`.
pub fn leased(owner: OwnerId) -> OwnedQueue {
    marked_with(&lease_of_owner(owner).encode())
}

/// A lease in the name of `owner`, for a request to nobody.
pub fn lease_of_owner(owner: OwnerId) -> Lease {
    Lease { owner, cookie: Cookie::new([7; 16]), request_queue: QueueId::new(0) }
}

/// A reply queue with this at its head instead of a lease.
pub fn marked_with(head: &[u8]) -> OwnedQueue {
    let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
    queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, head)).unwrap();
    queue
}

/// A living process, as its own lease would name it.
pub fn owner_of(pid: i32) -> OwnerId {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start_time = stat.rsplit_once(") ").unwrap().1.split(' ').nth(22 - 3).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let namespace = |kind| fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap().ino();
    OwnerId {
        pid: ids.split_whitespace().last().unwrap().parse().unwrap(),
        start_time: start_time.parse().unwrap(),
        pid_namespace: namespace("pid"),
        time_namespace: namespace("time"),
    }
}

/// A process that does nothing.
pub fn sleeper() -> Running {
    Running::start(Command::new("sleep").arg("1000"))
}

/// A process that is dead and buried.
pub fn dead_owner() -> OwnerId {
    let mut process = sleeper();
    let owner = owner_of(process.pid());
    process.signal(Signal::SIGKILL);
    process.wait();
    owner
}

/// Runs some system calls in a process of their own, which is dead and buried afterwards.
#[track_caller]
pub fn in_dead_process(work: impl FnOnce()) -> Pid {
    let child = fork_child(|| {
        work();
        exit_now(0)
    });
    let pid = child.unwrap();
    let status = waitpid(pid, None).unwrap();
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, 0));
    pid
}

/// The same command under `unshare`, ended with it.
pub fn unshared(options: &[&str], command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--fork", "--kill-child"]).args(options).arg(command.get_program());
    unshare.args(command.get_args()).env_remove("MQFS_KEY").stdin(Stdio::null());
    unshare
}

/// Runs the test of this name in a pid namespace of its own, with its own /proc and its own IPC
/// namespace, where nobody else takes pids. Where there is no root it is skipped, and says so.
pub fn as_root_in_own_pid_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    const INSIDE: &str = "MQFS_TEST_IN_OWN_PID_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return in_own_namespace(test);
    }
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture"]);
    let mut unshare = unshared(&["--pid", "--mount-proc"], &again);
    let output = String::from_utf8(run(unshare.env(INSIDE, "1")).success()).unwrap();
    assert!(output.contains("1 passed"), "{name} is not the test's name:\n{output}");
}

/// A server that has kept house once and will not do so again for an hour, so that only `mqfs-reap`
/// cleans up; it serves `/big`.
#[derive(Debug)]
pub struct QuietServer {
    pub server: Server,
    pub big: Vec<u8>,
    root: TempDir,
}

impl QuietServer {
    #[track_caller]
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let big = noise(4 << 20);
        fs::write(root.path().join("big"), &big).unwrap();
        fs::write(root.path().join("small"), "small").unwrap();
        let folder = root.path().to_str().unwrap();
        let server = Server::start(&["--reap-interval", "1h", "--root", folder]);
        // It keeps house before its first request.
        server.fetch("/small");
        let quiet = Self { server, big, root };
        quiet.wait_for_children();
        quiet
    }

    /// A client that asks for `/big`, to be started.
    pub fn client(&self) -> Command {
        let mut command = self.server.client();
        command.arg("/big");
        command
    }

    /// Where a file below its root is kept.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    #[track_caller]
    pub fn wait_for_children(&self) {
        wait_until("the children end", || children_of(self.server.pid()).is_empty());
    }

    /// Stops every child where it stands.
    #[track_caller]
    pub fn stop_children(&self) -> StoppedChildren {
        let children = children_of(self.server.pid());
        for &child in &children {
            kill(Pid::from_raw(child), Signal::SIGSTOP).unwrap();
            wait_until("the child stops", || state_of(child) == Some('T'));
        }
        StoppedChildren(children)
    }

    #[track_caller]
    pub fn stop(self) {
        self.server.stop();
    }
}

/// Children that go on when this goes out of scope.
#[derive(Debug)]
pub struct StoppedChildren(Vec<i32>);

impl Drop for StoppedChildren {
    fn drop(&mut self) {
        for &child in &self.0 {
            let _ = kill(Pid::from_raw(child), Signal::SIGCONT);
        }
    }
}

/// A client in the middle of a transfer that does not go on, since nobody reads its output.
#[derive(Debug)]
pub struct Stuck {
    pub client: Running,
    pub queue: Queue,
}

impl Stuck {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let before = reply_queues();
        let client = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        Self { client, queue: Self::find(&before) }
    }

    /// The reply queue that is new and full.
    #[track_caller]
    pub fn find(before: &[Queue]) -> Queue {
        let mut found = None;
        wait_until("the transfer is under way", || {
            let full = |queue: Queue| queue.status().is_ok_and(|s| s.bytes + 8136 > s.max_bytes);
            found = reply_queues().into_iter().find(|&q| !before.contains(&q) && full(q));
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until it has written more than its first messages to the pipe that nobody reads.
    #[track_caller]
    #[allow(unsafe_code)]
    pub fn wait_for_its_output(&mut self) {
        let pipe = self.client.child().stdout.as_ref().unwrap().as_raw_fd();
        wait_until("it has written", || {
            let mut unread: libc::c_int = 0;
            // SAFETY: the pipe is open, and the number outlives the call; ioctl_pipe(2).
            let asked = unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut unread) };
            asked == 0 && unread > 16 << 10
        });
    }

    /// `kill -9`, dead and buried.
    #[track_caller]
    pub fn kill(&mut self) {
        self.client.signal(Signal::SIGKILL);
        self.client.wait();
    }

    /// Reads what it has to write.
    #[track_caller]
    pub fn finish(self) -> Vec<u8> {
        self.client.finish().success()
    }
}
