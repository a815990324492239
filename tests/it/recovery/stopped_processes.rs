//! Processes that are stopped for a while, and a clock that jumps.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Place, signal};
use crate::support::{Running, Stuck, in_own_namespace, noise, run, state_of, wait_until};

/// Sleeps. The duration is part of the test, and not a guess.
fn let_pass(time: Duration) {
    let start = Instant::now();
    wait_until("the time has passed", || start.elapsed() > time);
}

#[in_own_namespace]
fn a_stopped_server_later_serves_the_clients_that_still_wait() {
    let place = Place::new();
    let server = place.serve(&[]);
    server.freeze();
    let patient = place.crowd(1, &[]);
    wait_until("it has asked", || place.waiting() == 1);
    let impatient = run(place.client().args(["--timeout", "500ms"]));
    assert_eq!(impatient.code(), Some(1));
    assert_eq!(impatient.stderr, "mqfs-client: /file: timed out: nothing came for 500ms\n");
    assert_eq!(place.waiting(), 2);
    server.signal(Signal::SIGCONT);
    patient.all_get(&place.file);
    wait_until("told", || server.log().contains(r#"reason="the reply queue does not exist""#));
    server.stop();
}

#[in_own_namespace]
fn a_child_stopped_beyond_the_stall_timeout_goes_on_with_a_reading_client() {
    let place = Place::new();
    let server = place.serve(&["--stall-timeout", "500ms"]);
    let stuck = Stuck::start(place.client().args(["--retries", "0"]));
    let child = server.children()[0];
    signal(child, Signal::SIGSTOP);
    wait_until("it is stopped", || state_of(child) == Some('T'));
    let queue = stuck.queue;
    let client = thread::spawn(|| stuck.finish());
    wait_until("all is read", || queue.status().unwrap().messages == 1);
    let_pass(Duration::from_millis(1500));
    signal(child, Signal::SIGCONT);
    assert!(client.join().unwrap() == place.file, "{}", server.log());
    server.stop();
}

/// Stops and continues like the cgroup freezer or `docker pause`.
#[in_own_namespace]
fn server_and_clients_frozen_beyond_every_timeout_go_on_afterwards() {
    let place = Place::new();
    let server = place.serve(&["--stall-timeout", "500ms"]);
    let big = noise(64 << 20);
    fs::write(place.folder.path().join("file"), &big).unwrap();
    let client = Running::start(place.client().args(["--timeout", "1s"]));
    wait_until("it is under way", || !server.children().is_empty());
    let all = [server.pid(), client.pid(), server.children()[0]];
    let client = thread::spawn(|| client.finish());
    for &pid in &all {
        signal(pid, Signal::SIGSTOP);
    }
    wait_until("all stand", || all.iter().all(|&pid| state_of(pid) == Some('T')));
    let_pass(Duration::from_millis(1500));
    for &pid in &all {
        signal(pid, Signal::SIGCONT);
    }
    let finished = client.join().unwrap();
    assert!(finished.stdout == big, "{}\n{}", finished.stderr, server.log());
    server.stop();
}
