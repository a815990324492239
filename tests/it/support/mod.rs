//! What the tests share: namespaces, programs that are ended with the test, waiting for conditions.

mod programs;
mod queues;
mod users;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mqfs::sys::signals;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use sysv_ipc::{Key, Lock, Queue, QueueId, QueueStatus, SharedMemory, queues};

pub use programs::{
    Finished, ForEverybody, Running, SOMEBODY, Server, client, program, reap, run, stat_of,
};
pub use queues::{
    QuietServer, Stuck, Verdicts, as_root_in_own_pid_namespace, dead_owner, exists,
    in_dead_process, lease_of_owner, leased, marked_with, owner_of, reply_queues, sleeper,
    unshared,
};
pub use users::{
    ATTACKER, Attack, Idle, OPERATOR, Site, VICTIM, as_user, lease_of, plain_request,
    public_folder, received, refusals, request, sent, set, stat, unanswered, wait_for_refusals,
};

/// How long anything may take before a test gives it up, on however busy a machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

thread_local! {
    /// The queues that a test found and that are not its own.
    static FOUND: RefCell<Vec<QueueId>> = const { RefCell::new(Vec::new()) };
}

/// Runs a test in an IPC namespace of its own, and fails if a queue, semaphore or shared memory is
/// left there.
///
/// A namespace belongs to a thread here; the programs that it starts inherit it. Without the right to
/// make one, such tests take turns in the namespace that they are in, and look past the queues that
/// they found there.
pub fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    static TURN: Mutex<()> = Mutex::new(());
    // Under nohup, and behind a script's "&", the programs would inherit that these are ignored, and
    // keep to it.
    static HEED_SIGNALS: Once = Once::new();
    HEED_SIGNALS.call_once(|| {
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            signals::reset(signal).unwrap();
        }
    });
    let outcome = thread::spawn(move || {
        let own = geteuid().is_root() && unshare(CloneFlags::CLONE_NEWIPC).is_ok();
        let _turn = (!own).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        let found = queues().unwrap().map(|(queue, _)| queue.id());
        FOUND.set(found.collect());
        test();
        if own {
            assert_eq!(all_queues(), [], "queues left");
            let semaphores = fs::read_to_string("/proc/sysvipc/sem").unwrap();
            assert_eq!(semaphores.lines().count(), 1, "semaphores left:\n{semaphores}");
            // A removed segment goes with the last child of a killed server.
            wait_until("no shared memory is left", || {
                let memory = fs::read_to_string("/proc/sysvipc/shm").unwrap();
                memory.lines().count() == 1
            });
        }
    })
    .join();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Like [`in_own_namespace`], for a test that cannot do without root: where there is none it is
/// skipped, and says so.
pub fn as_root_in_own_namespace(test: impl FnOnce() + Send + 'static) {
    if geteuid().is_root() {
        in_own_namespace(test);
    } else {
        eprintln!("skipped: needs root");
    }
}

/// Every queue that came since the test began.
pub fn all_queues() -> Vec<(Queue, QueueStatus)> {
    let found = FOUND.with_borrow(Vec::clone);
    queues().unwrap().filter(|(queue, _)| !found.contains(&queue.id())).collect()
}

/// The queue under a key.
pub fn queue_of(key: Key) -> Option<Queue> {
    Queue::open(key).ok()
}

/// A key that no other test has.
pub fn unique_key() -> Key {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    let process = (std::process::id() as i32 & 0x3_ffff) << 10;
    Key::new(0x4000_0000 | process | NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes queue, semaphore and shared memory under a key of the test's own.
pub fn clear(key: Key) {
    if let Ok(queue) = Queue::open(key) {
        let _ = queue.remove();
    }
    if let Ok(semaphore) = Lock::open(key) {
        let _ = semaphore.remove();
    }
    if let Ok(memory) = SharedMemory::open(key) {
        let _ = memory.remove();
    }
}

/// Waits for a condition, and fails the test if it does not come true in time.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes whose parent is `pid`, zombies included.
pub fn children_of(pid: i32) -> Vec<i32> {
    let parent_of = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| parent_of(name) == Some(pid))
        .map(|name| name.parse().unwrap())
        .collect()
}

/// The state letter of a process in /proc/PID/stat; None if there is no such process.
pub fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Bytes that do not repeat and that a test can make again.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A client in the midst of a transfer that does not go on: nobody reads its output. When this
/// returns, every child of the server serves some client.
#[track_caller]
pub fn stuck_client(server: &Server, path: impl AsRef<OsStr>) -> Running {
    stuck(server, server.client().arg(path))
}

/// The same, which fails as soon as its transfer is lost.
#[track_caller]
pub fn stuck_client_without_retries(server: &Server, path: impl AsRef<OsStr>) -> Running {
    stuck(server, server.client().args(["--retries", "0"]).arg(path))
}

#[track_caller]
fn stuck(server: &Server, client: &mut Command) -> Running {
    let stuck = Stuck::start(client);
    wait_until("the server has kept house", || {
        children_of(server.pid()).len() == reply_queues().len()
    });
    stuck.client
}

/// Why a System V IPC call failed.
pub fn errno_of(error: sysv_ipc::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error())
}

/// Forks a child that runs `body` and never returns from it.
pub fn fork_child(
    body: impl FnOnce() -> std::convert::Infallible,
) -> nix::Result<nix::unistd::Pid> {
    mqfs::sys::fork_child(body).map(|child| nix::unistd::Pid::from_raw(child.as_raw()))
}
