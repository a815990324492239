use std::io::{BufRead, BufReader, Read};

use nix::sys::signal::Signal;

use super::{assert_nothing_left, on};
use crate::support::{Running, in_own_namespace, run, unique_key};

/// Some of what every run shows, whatever the ids and pids.
const SHOWN: [&str; 6] = [
    ": its queue stays, and a client in msgrcv still waits",
    ": msgrcv fails with EIDRM",
    "  the client tries its old id again: EINVAL",
    ": it lives, and holds the lock",
    ": it is dead, nobody holds the lock",
    " is asked to stop, and leaves nothing",
];

#[in_own_namespace]
fn a_client_finds_the_next_server_and_recognises_a_dead_servers_memory() {
    let key = unique_key();
    let finished = run(&mut on(key, "restart"));
    assert_eq!(finished.stderr, "");
    let shown = String::from_utf8(finished.success()).unwrap();
    let mut lines = shown.lines();
    for end in SHOWN {
        assert!(lines.any(|line| line.ends_with(end)), "{end:?} is missing in\n{shown}");
    }
    assert_nothing_left(key);
}

#[in_own_namespace]
fn a_signal_ends_it_and_its_servers_and_leaves_nothing() {
    for lines in [1, 3, 9] {
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
