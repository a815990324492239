//! A short run of each soak test. `cargo run --release -p mqfs-soak` makes long ones.

#![allow(missing_docs)]

use std::process::{Command, Stdio};
use std::time::Instant;

use mqfs_kit::{Running, children_of, in_own_namespace, run, wait_until};
use nix::sys::signal::Signal;

/// Runs a soak test, which checks itself.
fn hold(arguments: &'static str) {
    in_own_namespace(move || {
        let start = Instant::now();
        let output = run(&mut command(arguments));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments}: {}\n{said}{}", output.status, output.stderr);
        assert!(said.ends_with("everything held\n"), "{said}");
        println!("{said}{arguments}: {:.1?}", start.elapsed());
    });
}

/// The soak test as cargo built it. It builds mqfs's programs itself if this test runs alone.
fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqfs-soak"));
    command.args(arguments.split(' ')).env_remove("MQFS_KEY").stdin(Stdio::null());
    command
}

#[test]
fn files_arrive_whole_and_nothing_is_left_despite_faults() {
    hold("faults --faults 100 --seed 1 --timeout 5s");
}

#[test]
fn a_server_uses_as_much_after_many_requests_as_before() {
    hold("endurance --requests 2000");
}

#[in_own_namespace]
fn an_interrupted_soak_test_leaves_nothing() {
    let mut test = Running::start(&mut command("faults --faults 1000000"));
    wait_until("it is under way", || children_of(test.pid()).len() > 5);
    test.signal(Signal::SIGINT);
    assert_eq!(test.wait().code(), Some(130));
}
