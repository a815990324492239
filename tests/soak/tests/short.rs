//! A short run of each soak test. `cargo run --release -p mqfs-soak` makes long ones.

#![allow(missing_docs)]

use std::process::{Command, Stdio};

use mqfs_kit::{Running, children_of, run, wait_until};
use nix::sys::signal::Signal;

/// Runs a soak test, which checks itself.
fn hold(arguments: &str) {
    let output = run(&mut command(arguments));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments}: {}\n{said}{}", output.status, output.stderr);
    assert!(said.ends_with("everything held\n"), "{said}");
}

/// The soak test as cargo built it. It builds mqfs's programs itself if this test runs alone.
fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqfs-soak"));
    command.args(arguments.split(' ')).stdin(Stdio::null());
    command
}

#[test]
fn files_arrive_whole_and_nothing_is_left_despite_faults() {
    hold("faults --faults 100 --seed 1");
}

#[test]
fn a_server_uses_as_much_after_many_requests_as_before() {
    hold("endurance --requests 2000");
}

#[test]
fn an_interrupted_soak_test_leaves_no_process() {
    let mut test = Running::start(&mut command("faults --faults 1000000"));
    // unshare, the soak test in the namespaces, and its clients.
    let below = |pids: Vec<i32>| -> Vec<i32> { pids.into_iter().flat_map(children_of).collect() };
    let mut clients = Vec::new();
    wait_until("it is under way", || {
        clients = below(below(children_of(test.pid())));
        clients.len() > 5
    });
    test.signal(Signal::SIGINT);
    assert_eq!(test.wait().code(), Some(130));
    let left = clients.into_iter().filter(|&pid| mqfs_kit::state_of(pid).is_some());
    assert_eq!(left.count(), 0);
}
