//! The classic designs under `examples/`, as a user runs them.

mod controller;
mod deadlock;
mod limits;
mod priority;
mod restart;
mod single_queue;
mod single_queue_faults;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sysv_ipc::{Key, Lock, SharedMemory};

use crate::support::{
    Finished, Running, all_queues, clear, in_own_namespace, program, queue_of, run, unique_key,
};

const PROGRAMS: [&str; 6] =
    ["single_queue_server", "single_queue_client", "priority", "controller", "restart", "limits"];

/// A program that serves under a key of its own, and can be asked.
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
        let mut line = String::new();
        let stdout = running.child().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let service = Self { key, running: Some(running) };
        let queue = queue_of(key).map(|queue| queue.id().to_string()).unwrap_or_default();
        assert!(
            line.starts_with(&format!("{name}: ready: key {key}, queue {queue}, ")),
            "{line:?}"
        );
        service
    }

    /// Ends it as a service manager would; its standard error. Fails the test unless it ends well
    /// and leaves nothing.
    #[track_caller]
    fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Waits for its end, likewise.
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

    /// `kill -9`, dead and buried.
    #[track_caller]
    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.running().wait();
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
        // Killed when the test fails, it removes nothing.
        drop(self.running.take());
        clear(self.key);
    }
}

/// `NAME --key KEY`, to be told more.
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

#[test]
fn every_program_tells_how_it_is_used() {
    for name in PROGRAMS {
        let help = String::from_utf8(run(program(name).arg("--help")).success()).unwrap();
        assert!(help.contains(&format!("Usage: {name}")), "{help}");
        assert!(help.contains("Exit status: 0 done; 1 it failed; 2 invalid input"), "{help}");
    }
}

#[test]
fn what_no_program_understands_is_told_in_one_line() {
    for name in PROGRAMS {
        let refused = run(program(name).arg("--no-such-option"));
        assert_eq!(refused.code(), Some(2));
        let told =
            format!("{name}: unexpected argument '--no-such-option' found (see {name} --help)\n");
        assert_eq!(refused.stderr, told);
    }
}

#[test]
fn ipc_private_is_no_key() {
    for name in ["single_queue_server", "single_queue_client", "controller", "restart"] {
        let refused = run(program(name).args(["--key", "0"]));
        assert_eq!(refused.code(), Some(2));
        let told = format!(
            "{name}: invalid value '0' for '--key <KEY>': this is IPC_PRIVATE (see {name} --help)\n"
        );
        assert_eq!(refused.stderr, told);
    }
}

#[test]
fn a_reader_that_goes_away_ends_them_without_a_word() {
    in_own_namespace(|| {
        let key = unique_key();
        for mut command in [program("priority"), program("limits"), on(key, "restart")] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let ended = Running::start(command.stdout(writer).stderr(Stdio::piped())).finish();
            assert_eq!((ended.code(), ended.stderr.as_str()), (Some(141), ""));
            assert_nothing_left(key);
        }
        assert_eq!(own_queues(), 0, "queues left");
    });
}

/// Queues that this test's programs made: others' may come and go where there is no own namespace.
fn own_queues() -> usize {
    let own = nix::unistd::geteuid();
    all_queues()
        .iter()
        .filter(|(_, status)| status.permissions.cuid.as_raw() == own.as_raw() && own.is_root())
        .count()
}
