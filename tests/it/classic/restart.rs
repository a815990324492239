use std::io::{BufRead, BufReader, Read};

use nix::sys::signal::Signal;

use super::{assert_nothing_left, on};
use crate::support::{Running, in_own_namespace, run, unique_key};

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
fn a_signal_ends_it_and_its_servers_and_leaves_nothing() {
    for lines in [1, 3, 9, 12] {
        let key = unique_key();
        let mut running = Running::piped(&mut on(key, "restart"));
        let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
        (0..lines).for_each(|_| _ = stdout.read_line(&mut String::new()).unwrap());
        running.signal(Signal::SIGTERM);
        // Its servers hold the other end too, so this ends when all of them have ended.
        stdout.read_to_string(&mut String::new()).unwrap();
        assert_eq!(running.finish().code(), Some(130));
        assert_nothing_left(key);
    }
}
