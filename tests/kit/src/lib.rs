//! What the tests, soak tests and benchmarks of mqfs share: namespaces, users, the programs under
//! test as processes that end with the test, hand-made queues, and waiting for conditions.
//!
//! Everything here panics when it fails, and what it started ends with its handle.

#![allow(missing_docs, clippy::new_without_default)]

pub mod fake_server;
pub mod fuzz;
mod hung;
mod namespace;
mod process;
mod programs;
mod queues;
mod random;
mod server;
pub mod session;
mod site;
mod terminal;
mod users;

use std::thread;
use std::time::{Duration, Instant};

pub use hung::*;
pub use mqfs_kit_macros::*;
pub use namespace::*;
pub use process::*;
pub use programs::*;
pub use queues::*;
pub use random::*;
pub use server::*;
pub use site::*;
pub use terminal::*;
pub use users::*;

/// How long anything may take, on however busy a machine, before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a condition; false if it does not come true in time.
pub fn wait_for(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(250));
    while !condition() {
        if start.elapsed() >= timeout {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    true
}

/// Waits for a condition, and fails the test if it does not come true in time.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_for(DEADLINE, condition), "not in time: {what}");
}

/// Sleeps. The duration is part of the test, and not a guess.
pub fn let_pass(time: Duration) {
    let start = Instant::now();
    wait_until("the time has passed", || start.elapsed() > time);
}

/// Waits for the signal that ends this process.
pub fn wait_for_ever() -> ! {
    loop {
        nix::unistd::pause();
    }
}

/// Makes a file of this many zeros, none of them in a hole, without writing them.
pub fn allocate(path: impl AsRef<std::path::Path>, size: i64) {
    let file = std::fs::File::create(path).unwrap();
    nix::fcntl::posix_fallocate(file, 0, size).unwrap();
}

pub fn errno_of(error: sysv_ipc::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error())
}

/// Forks a child that runs `body` and never returns from it.
pub fn fork_child(
    body: impl FnOnce() -> std::convert::Infallible,
) -> nix::Result<nix::unistd::Pid> {
    mqfs::sys::fork_child(body).map(|child| nix::unistd::Pid::from_raw(child.as_raw()))
}
