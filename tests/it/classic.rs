//! The classic designs under `examples/`, as a user runs them.

mod controller;
mod deadlock;
mod priority;
mod restart;
mod single_queue;

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sysv_ipc::{Key, Lock, SharedMemory};

use crate::support::{Finished, Running, clear, program, queue_of, unique_key};

/// A program that serves under a key of its own, ready for requests.
struct Service {
    key: Key,
    running: Option<Running>,
}

impl Service {
    #[track_caller]
    fn start(name: &str, arguments: &[&str]) -> Self {
        let key = unique_key();
        let mut command = on(key, name);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        let line = running.first_line();
        let service = Self { key, running: Some(running) };
        let queue = queue_of(key).map(|queue| queue.id().to_string()).unwrap_or_default();
        assert_eq!(line, format!("{name}: ready: key {key}, queue {queue}\n"));
        service
    }

    /// Stops it as a service manager would. Fails the test unless it ends well and leaves nothing.
    /// Returns its standard error.
    #[track_caller]
    fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// The same for a program that ends by itself.
    #[track_caller]
    fn ended(self) -> String {
        let key = self.key;
        let finished = self.finish();
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        assert_nothing_left(key);
        finished.stderr
    }

    #[track_caller]
    fn finish(mut self) -> Finished {
        self.running.take().unwrap().finish()
    }

    fn pid(&self) -> i32 {
        self.running.as_ref().unwrap().pid()
    }

    fn signal(&self, signal: Signal) {
        self.running.as_ref().unwrap().signal(signal);
    }

    #[track_caller]
    fn freeze(&self) {
        self.running.as_ref().unwrap().freeze();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.running.take());
        clear(self.key);
    }
}

/// `NAME --key KEY`, without further arguments.
fn on(key: Key, name: &str) -> Command {
    let mut command = program(name);
    command.args(["--key", &key.to_string()]);
    command
}

#[track_caller]
fn assert_nothing_left(key: Key) {
    assert_eq!(queue_of(key), None, "a queue is left");
    assert!(Lock::open(key).is_err(), "a semaphore is left");
    assert!(SharedMemory::open(key).is_err(), "shared memory is left");
}
