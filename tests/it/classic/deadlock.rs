//! The deadlock of one queue for everything, shown by `deadlock`.

use super::on;
use super::single_queue::server;
use crate::support::{in_own_namespace, run};

#[in_own_namespace]
fn the_deadlock_is_shown_and_both_ways_out() {
    let server = server(&["--verbose", "--keep", "300ms"]);
    let shown = run(&mut on(server.key, "deadlock"));
    assert_eq!(shown.stderr, "");
    let shown = String::from_utf8(shown.success()).unwrap();
    for part in [
        "   the queue: 63 messages, 16380 of 16384 bytes\n",
        "   64 clients wait in msgrcv, each for its answer\n",
        "   1 client waits in msgsnd, for room\n",
        "   after 1 s: nothing moved, nobody was answered\n",
        "s: 189 requests taken, ",
        "   a client that collects its answer got it after ",
        "   65 clients, of which 33 collect: all answered after ",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let log = server.stop();
    assert!(log.contains(": no such process\n"), "{log}");
}
