//! The circular wait of one queue for everything, shown by `single_queue_client`; and the same load on
//! mqfs, where it cannot be.

use std::fs;

use nix::sys::signal::Signal;

use super::single_queue::{client, server};
use crate::support::{Server, Stuck, in_own_namespace, noise, run};

#[test]
fn the_circular_wait_is_shown_and_both_ways_out() {
    in_own_namespace(|| {
        let server = server(&["--verbose", "--keep", "300ms"]);
        let shown = run(client(server.key).arg("--demonstrate-deadlock"));
        assert_eq!(shown.stderr, "");
        let shown = String::from_utf8(shown.success()).unwrap();
        for line in [
            "1. one queue, and a server that waits in msgsnd",
            "   the queue: 63 messages, 16380 of 16384 bytes",
            "   64 clients wait in msgrcv, each for its answer",
            "   1 client waits in msgsnd, for room",
            "   after 1.000 s: nothing moved, nobody was answered",
            "   removing the queue ended it: every call failed with EIDRM",
            "2. one queue, and single_queue_server, which does not",
            "   the sender waits in msgsnd; the server holds answers that do not fit, and does not wait",
            "3. a queue per client, as mqfs has it, and a server that waits in msgsnd",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
        }
        for part in [
            " s: all 189 requests were taken, ",
            "   a client that collects its answer got it after ",
            "   65 clients, 33 of whom collect their answers: all answered after ",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        let log = server.stop();
        assert!(log.contains(": no such process\n"), "{log}");
    });
}

#[test]
fn the_demonstration_has_a_deadline() {
    in_own_namespace(|| {
        let server = server(&[]);
        server.freeze();
        let options = ["--demonstrate-deadlock", "--timeout", "2s"];
        let stuck = run(client(server.key).args(options));
        assert_eq!(stuck.code(), Some(1));
        let told = "single_queue_client: timed out: the server took no more requests\n";
        assert_eq!(stuck.stderr, told);
        server.signal(Signal::SIGCONT);
        server.stop();
    });
}

/// As many clients as fill a queue with requests; half of them never collect what they are sent.
#[test]
fn the_same_load_on_mqfs_goes_through() {
    in_own_namespace(|| {
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
    });
}
