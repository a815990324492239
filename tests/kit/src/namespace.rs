//! Namespaces for tests, and the keys and queues in them.

use std::cell::RefCell;
use std::fs;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use mqfs::sys::signals;
use mqfs::wire::WINDOW_MODE;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use sysv_ipc::{
    Key, Lock, Permissions, Queue, QueueId, QueueStatus, SharedMemory, SharedMemoryStatus, queues,
    shared_memory_segments,
};

use crate::{by, run, wait_until};

thread_local! {
    /// The queues that a test found and that are not its own.
    static FOUND: RefCell<Vec<QueueId>> = const { RefCell::new(Vec::new()) };
}

/// Moves this thread, and what it starts, into an IPC namespace of its own. False where we may not.
pub fn enter_own_namespace() -> bool {
    geteuid().is_root() && unshare(CloneFlags::CLONE_NEWIPC).is_ok()
}

/// Runs a test in an IPC namespace of its own. The test fails if it leaves a queue, a semaphore or
/// shared memory there.
///
/// Without the right to make a namespace, such tests take turns in the common one, and ignore the
/// queues that were there before.
pub fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    static TURN: Mutex<()> = Mutex::new(());
    // nohup, and a script's "&", ignore these signals. The programs would inherit that.
    static HEED_SIGNALS: Once = Once::new();
    HEED_SIGNALS.call_once(|| {
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            signals::reset(signal).unwrap();
        }
    });
    let outcome = thread::spawn(move || {
        let own = enter_own_namespace();
        let _turn = (!own).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        let found = queues().unwrap().map(|(queue, _)| queue.id());
        FOUND.set(found.collect());
        test();
        if own {
            assert_eq!(all_queues(), [], "queues left");
            assert_eq!(listed("sem"), 0, "semaphores left");
            // A removed segment goes with the last child of a killed server.
            wait_until("no shared memory is left", || listed("shm") == 0);
        }
    })
    .join();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// How many objects of a kind ("sem", "shm") this IPC namespace has: proc_sysvipc(5).
pub fn listed(kind: &str) -> usize {
    let list = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
    list.lines().count().saturating_sub(1)
}

/// The segments through which servers send files.
pub fn windows() -> Vec<(SharedMemory, SharedMemoryStatus)> {
    let is_window = |status: &SharedMemoryStatus| {
        let Permissions { key, mode, cuid, .. } = status.permissions;
        // Without root, the machine's namespace may have other users' windows.
        let is_ours = geteuid().is_root() || cuid.as_raw() == geteuid().as_raw();
        key.is_private() && mode == WINDOW_MODE && is_ours
    };
    shared_memory_segments().unwrap().filter(|(_, status)| is_window(status)).collect()
}

/// Like [`in_own_namespace`], but skips the test, and says so, without root.
pub fn as_root_in_own_namespace(test: impl FnOnce() + Send + 'static) {
    if geteuid().is_root() {
        in_own_namespace(test);
    } else {
        eprintln!("skipped: needs root");
    }
}

/// Every queue that was made since the test began.
pub fn all_queues() -> Vec<(Queue, QueueStatus)> {
    let found = FOUND.with_borrow(Vec::clone);
    queues().unwrap().filter(|(queue, _)| !found.contains(&queue.id())).collect()
}

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
    if let Ok(lock) = Lock::open(key) {
        let _ = lock.remove();
    }
    if let Ok(memory) = SharedMemory::open(key) {
        let _ = memory.remove();
    }
}

#[derive(Debug)]
pub struct ClearAtEnd(pub Key);

impl Drop for ClearAtEnd {
    fn drop(&mut self) {
        clear(self.0);
    }
}

/// The same command under `unshare`, ended with it.
pub fn unshared(options: &[&str], command: &Command) -> Command {
    by(&[&["unshare", "--fork", "--kill-child"], options].concat(), command)
}

/// Runs a test in a pid namespace of its own, with its own /proc and IPC namespace, so that no
/// other test takes pids. Skips the test, and says so, without root.
pub fn as_root_in_own_pid_namespace(test: impl FnOnce() + Send + 'static) {
    const INSIDE: &str = "MQFS_TEST_IN_OWN_PID_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return in_own_namespace(test);
    }
    if !geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let path = std::any::type_name_of_val(&test); // CRATE::MODULE::TEST::{{closure}}
    let name = path.split_once("::").unwrap().1.trim_end_matches("::{{closure}}");
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture"]);
    let mut unshare = unshared(&["--pid", "--mount-proc"], &again);
    let output = String::from_utf8(run(unshare.env(INSIDE, "1")).success()).unwrap();
    assert!(output.contains("1 passed"), "{name} is not the test's name:\n{output}");
}
