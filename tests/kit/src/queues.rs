//! Hand-made queues, processes that own them, and the verdicts of `mqfs-reap`.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use mqfs::ownership::lease::{self, Head};
use mqfs::sys::exit_now;
use mqfs::wire::{Cookie, LEASE_TYPE, Lease, OwnerId, REPLY_QUEUE_MODE};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer, Mode, OwnedQueue, Queue, QueueId, queues};

use crate::{
    Process, Running, Server, all_queues, fork_child, owner_of, program, request, run, wait_until,
};

#[derive(Debug)]
pub struct Verdicts(pub Vec<Value>);

impl Verdicts {
    #[track_caller]
    pub fn now() -> Self {
        Self::with(&[])
    }

    /// The verdicts of `mqfs-reap --json` with more arguments.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Self {
        Self::of(program("mqfs-reap").arg("--json").args(arguments))
    }

    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        Self::in_text(run(command).success())
    }

    #[track_caller]
    pub fn in_text(json: Vec<u8>) -> Self {
        let text = String::from_utf8(json).unwrap();
        Self(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

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

/// Whether the next DATA message would have to wait.
pub fn is_full(queue: Queue) -> bool {
    queue.status().is_ok_and(|status| status.bytes + 8136 > status.max_bytes)
}

/// The lease at the head of a queue, which its owner and root may read.
pub fn find_lease(queue: Queue) -> Option<Lease> {
    match lease::peek(queue) {
        Head::Lease(lease) => Some(lease),
        _ => None,
    }
}

pub fn queues_of(process: Process) -> Vec<(Queue, Lease)> {
    let all =
        queues().into_iter().flatten().filter(|(_, status)| status.permissions.key.is_private());
    all.filter_map(|(queue, _)| Some((queue, find_lease(queue)?)))
        .filter(|(_, lease)| process.owns(lease))
        .collect()
}

pub fn exists(queue: Queue) -> bool {
    queue.status().is_ok()
}

/// The reply queues that can be seen from here.
pub fn reply_queues() -> Vec<Queue> {
    let marked = |mode: Mode, key: Key| mode == REPLY_QUEUE_MODE && key.is_private();
    let all = all_queues().into_iter();
    all.filter(|(_, s)| marked(s.permissions.mode, s.permissions.key)).map(|(q, _)| q).collect()
}

pub fn leased(owner: OwnerId) -> OwnedQueue {
    marked_with(&lease_of_owner(owner).encode())
}

/// Lets the next queue of this IPC namespace have this id: checkpoint_restore in ipc/util.c.
pub fn let_next_queue_have(id: QueueId) {
    fs::write("/proc/sys/kernel/msg_next_id", id.get().to_string()).unwrap();
}

/// A private queue with the id of a removed queue.
pub fn private_queue_with(id: QueueId, mode: Mode) -> OwnedQueue {
    let_next_queue_have(id);
    let queue = OwnedQueue::private(mode).unwrap();
    assert_eq!(queue.id(), id);
    queue
}

/// Puts a lease of this process into a reply queue, for requests to this request queue.
pub fn put_lease(queue: Queue, requests: Queue) -> Cookie {
    let lease = lease::new(requests.id()).unwrap();
    queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease.encode())).unwrap();
    lease.cookie
}

/// The same, and makes a request that names the queue.
pub fn leased_request(queue: Queue, requests: Queue, path: &str) -> MessageBuffer {
    request(queue, path, put_lease(queue, requests))
}

/// A lease in the name of `owner`, for no server's request queue.
pub fn lease_of_owner(owner: OwnerId) -> Lease {
    Lease { owner, cookie: Cookie::new([7; 16]), request_queue: QueueId::new(0) }
}

/// A reply queue with this at its head instead of a lease.
pub fn marked_with(head: &[u8]) -> OwnedQueue {
    let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
    queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, head)).unwrap();
    queue
}

pub fn sleeper() -> Running {
    Running::start(Command::new("sleep").arg("1000"))
}

/// A process that has ended, and its parent has waited for it.
pub fn dead_owner() -> OwnerId {
    let mut process = sleeper();
    let owner = owner_of(process.pid());
    process.kill();
    owner
}

/// Runs some system calls in a process of their own, which has ended when this returns.
pub fn in_dead_process(work: impl FnOnce()) -> Pid {
    let child = fork_child(|| {
        work();
        exit_now(0)
    });
    let pid = child.unwrap();
    let mut ended = WaitStatus::StillAlive;
    wait_until("the process ends", || {
        ended = waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap();
        ended != WaitStatus::StillAlive
    });
    assert_eq!(ended, WaitStatus::Exited(pid, 0));
    pid
}

/// A client in the middle of a transfer that does not go on, because nobody reads its output.
#[derive(Debug)]
pub struct Stuck {
    pub client: Running,
    pub queue: Queue,
}

impl Stuck {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let before = reply_queues();
        let client = Running::piped(command);
        Self { client, queue: Self::find(&before) }
    }

    /// The reply queue that is new and full.
    #[track_caller]
    pub fn find(before: &[Queue]) -> Queue {
        let mut found = None;
        wait_until("the transfer is under way", || {
            found = reply_queues().into_iter().find(|&q| !before.contains(&q) && is_full(q));
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until it has filled a good part of its output pipe.
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

    /// Reads the rest of its output, and waits for its end.
    #[track_caller]
    pub fn finish(self) -> Vec<u8> {
        self.client.finish().success()
    }
}

/// A client with these arguments, in the middle of a transfer that does not go on. When this
/// returns, every child of the server serves a client.
#[track_caller]
pub fn stuck_client(server: &Server, arguments: &[&str]) -> Running {
    let stuck = Stuck::start(server.client().args(arguments));
    wait_until("the child that removes orphans ends", || {
        server.children().len() == reply_queues().len()
    });
    stuck.client
}
