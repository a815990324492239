//! The deadlock of one queue for everything, shown by `deadlock`; and the same load on mqfs, where
//! no deadlock is possible.

use std::fs;

use super::on;
use super::single_queue::server;
use crate::support::{Server, Stuck, in_own_namespace, noise, run};

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

/// As many clients as fill a queue with requests; half of them never collect their answers.
#[in_own_namespace]
fn the_same_load_on_mqfs_goes_through() {
    let folder = tempfile::tempdir().unwrap();
    let file = noise(1 << 20);
    fs::write(folder.path().join("file"), &file).unwrap();
    let server = Server::start(&["--root", folder.path().to_str().unwrap()]);
    let stuck: Vec<_> = (0..32).map(|_| Stuck::start(server.client().arg("/file"))).collect();
    for _ in 0..33 {
        assert!(server.fetch("/file") == file);
    }
    for stuck in stuck {
        assert!(stuck.finish() == file);
    }
    server.stop();
}
