//! Processes that are stopped for a while, and a clock that jumps.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Place, signal};
use crate::support::{
    Running, Server, Stuck, in_own_namespace, noise, program, queue_of, run, state_of, wait_until,
};

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
fn a_stopped_server_obeys_an_earlier_sigterm_when_it_goes_on() {
    let place = Place::new();
    let mut server = place.serve(&[]);
    server.freeze();
    server.signal(Signal::SIGTERM);
    assert_eq!(state_of(server.pid()), Some('T'));
    server.signal(Signal::SIGCONT);
    assert!(server.running().wait().success());
    assert_eq!(queue_of(place.key), None);
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

/// Stops and continues like Ctrl-Z and fg.
#[in_own_namespace]
fn a_client_stopped_until_its_child_gave_up_fetches_the_rest() {
    let place = Place::new();
    let server = place.serve(&["--stall-timeout", "500ms"]);
    let stuck = Stuck::start(&mut place.client());
    stuck.client.freeze();
    wait_until("its child gives up", || server.log().contains("client stalled"));
    stuck.client.signal(Signal::SIGCONT);
    assert!(stuck.finish() == place.file);
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

/// A wall clock that jumps a year ahead and back. A wait that used it would take for ever or no
/// time.
const JUMPING_CLOCK: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int ahead;
    int outcome = syscall(SYS_clock_gettime, clock, now);
    if (outcome == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += (ahead = !ahead) ? 31557600 : -31557600;
    return outcome;
}
";

#[in_own_namespace]
fn a_clock_that_jumps_disturbs_neither_server_nor_clients() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let (source, clock) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    fs::write(&source, JUMPING_CLOCK).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&clock).arg(&source);
    if !cc.status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: needs a C compiler");
    }
    let mut command = program("mqfs-server");
    command.args(["-k", &place.key.to_string(), "--reap-interval", "20ms", "--root"]);
    command.arg(place.folder.path()).env("LD_PRELOAD", &clock);
    let server = Server::start_as(place.key, &mut command);
    let stuck = Stuck::start(place.client().env("LD_PRELOAD", &clock));
    for _ in 0..20 {
        let mut client = place.client();
        assert!(run(client.env("LD_PRELOAD", &clock)).success() == place.file);
    }
    let_pass(Duration::from_millis(1500)); // ticks, and doubts of the client's
    assert!(stuck.finish() == place.file);
    let log = server.log();
    let years: HashSet<_> = log.lines().filter_map(|line| line.get(..4)).collect();
    assert!(years.len() > 1, "the clock jumps: {log}");
    server.stop();
}
