//! The trials of examples/trials, in short. `cargo run --release --example trials` makes long ones.

use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::{Running, children_of, in_own_namespace, program, run, wait_until};

/// Runs a trial, which says itself what must hold.
fn hold(trial: &'static str) {
    in_own_namespace(move || {
        let start = Instant::now();
        let output = run(&mut command(trial));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{trial}: {}\n{said}{}", output.status, output.stderr);
        assert!(said.ends_with("everything held\n"), "{said}");
        println!("{said}{trial}: {:.1?}", start.elapsed());
    });
}

/// What Cargo runs builds the programs first; here they are built.
fn command(trial: &str) -> Command {
    let mut command = program("trials");
    command.args(trial.split(' ')).env_remove("CARGO");
    command
}

#[test]
fn files_arrive_whole_and_nothing_is_left_whatever_is_killed_and_stopped() {
    hold("faults --faults 150 --seed 1 --timeout 5s");
}

#[test]
fn a_transfer_outlives_its_servers_and_little_is_read_twice() {
    hold("resume --size 64M --kills 3");
}

#[test]
fn a_crowd_is_served_at_once_though_some_stop_and_some_die() {
    hold("crowd --clients 60 --stopped 12 --killed 12");
}

#[test]
fn many_requests_leave_a_server_as_it_was() {
    hold("endurance --requests 2000");
}

#[test]
fn a_trial_that_cannot_be_says_why_and_fails() {
    let failed = run(&mut command("crowd --clients 3 --stopped 2 --killed 2"));
    assert_eq!(failed.code(), Some(1));
    let expected = "WRONG: more stopped and killed than there are clients\n";
    assert_eq!(String::from_utf8_lossy(&failed.stdout), expected);
}

#[test]
fn a_trial_is_given_up_cleanly() {
    in_own_namespace(|| {
        let mut trial = Running::start(&mut command("faults --faults 1000000"));
        wait_until("it is under way", || children_of(trial.pid()).len() > 5);
        trial.signal(Signal::SIGINT);
        assert_eq!(trial.wait().code(), Some(130));
    });
}
