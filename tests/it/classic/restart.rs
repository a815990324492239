use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::unistd::getpid;
use sysv_ipc::{Acquire, Lock, Mode, OwnedQueue};

use super::{assert_nothing_left, on};
use crate::support::{Running, exists, in_own_namespace, run, unique_key};

/// What every run shows, whatever the ids and pids.
const SHOWN: [&str; 16] = [
    "the queue",
    " answers",
    ": its queue stays, and a client in msgrcv still waits",
    ": msgrcv fails with EIDRM",
    "  the client tries its old id again: EINVAL",
    " answers",
    "the shared memory",
    ", requests: 1\"",
    ": it lives, and holds the lock",
    ", requests: 1\"",
    ": it is dead, nobody holds the lock",
    ", requests: 1\"",
    " holds it",
    ", requests: 0\"",
    ": EINVAL: Invalid argument",
    " is asked to stop, and leaves nothing",
];

#[in_own_namespace]
fn a_client_finds_the_next_server_and_recognises_a_dead_servers_memory() {
    let key = unique_key();
    let finished = run(&mut on(key, "restart"));
    assert_eq!(finished.stderr, "");
    let shown = String::from_utf8(finished.success()).unwrap();
    assert_eq!(shown.lines().count(), SHOWN.len(), "{shown}");
    for (line, end) in shown.lines().zip(SHOWN) {
        assert!(line.ends_with(end), "{line:?} does not end with {end:?}");
    }
    assert_nothing_left(key);
}

#[in_own_namespace]
fn a_signal_at_any_time_ends_it_and_its_servers_and_leaves_nothing() {
    let last = SHOWN.len() - 1;
    for (lines, signal) in (0..last).zip([Signal::SIGINT, Signal::SIGTERM].iter().cycle()) {
        let key = unique_key();
        let mut command = on(key, "restart");
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(command);
        let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
        for _ in 0..=lines {
            stdout.read_line(&mut String::new()).unwrap();
        }
        running.signal(*signal);
        // Its servers hold the other end too, so this ends when all of them have ended.
        stdout.read_to_string(&mut String::new()).unwrap();
        let ended = running.finish();
        match ended.code() {
            Some(130) => {}
            // It was done before the signal came.
            code => assert_eq!((code, ended.stderr.as_str()), (Some(0), "")),
        }
        assert_nothing_left(key);
    }
}

#[in_own_namespace]
fn a_key_in_use_is_left_alone() {
    let key = unique_key();
    let foreign = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    let refused = run(&mut on(key, "restart"));
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("is in use by another program"), "{}", refused.stderr);
    assert!(exists(*foreign));
    drop(foreign);

    let lock = Lock::open_or_create(key, Mode::new(0o644)).unwrap();
    assert_eq!(lock.try_acquire(), Ok(Acquire::Acquired));
    let refused = run(&mut on(key, "restart"));
    assert_eq!(refused.code(), Some(1));
    let told = format!("runs there already, pid {}\n", getpid());
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    lock.remove().unwrap();
    assert_nothing_left(key);
}
