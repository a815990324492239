//! The classic designs under `examples/`, as a user runs them.

mod controller;
mod deadlock;
mod limits;
mod priority;
mod restart;
mod single_queue;
mod single_queue_faults;

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sysv_ipc::{Key, Lock, SharedMemory};

use crate::support::{Finished, Running, clear, in_own_namespace, program, queue_of, unique_key};

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

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    #[track_caller]
    fn kill(&mut self) {
        self.running().kill();
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
        // If it was killed, it has removed nothing.
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

#[in_own_namespace]
fn a_program_whose_output_nobody_reads_ends_and_leaves_nothing() {
    let key = unique_key();
    for mut command in [program("priority"), program("limits"), on(key, "restart")] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Running::start(command.stdout(writer).stderr(Stdio::piped())).finish();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(1), ""));
        assert_nothing_left(key);
    }
}
