//! Whoever is killed: no window is left, and the others go on as they do without one.

use mqfs::wire::WINDOW_MODE;
use nix::sys::signal::Signal;
use sysv_ipc::{Key, Mode, SharedMemory};

use super::{first_window, wait_until_gone};
use crate::support::session::{RawSession, fetch};
use crate::support::{
    Running, Server, exists, in_dead_process, in_own_namespace, is_full, queue_of, reap,
    reply_queues, serve_quietly, wait_until, windows,
};

/// Waits until client and child have a window attached, and the client takes no more from it.
fn wait_until_stuck() {
    wait_until("both have it attached, and the queue is full", || {
        let is_attached = matches!(&windows()[..], [(_, status)] if status.attached == 2);
        is_attached && reply_queues().into_iter().all(is_full)
    });
}

#[in_own_namespace]
fn whoever_is_killed_leaves_no_window() {
    let (mut server, folder, file) = serve_quietly(8 << 20, &[]);
    let restart = ["--reap-interval", "1h", "--root", folder.path().to_str().unwrap()];
    let killed = ["client", "child", "client and child", "server", "server and child"];
    let at = [false, true].map(|is_new| killed.map(|killed| (is_new, killed))).concat();
    for (round, (is_new, killed)) in at.repeat(2).into_iter().enumerate() {
        let paths = vec!["/file"; 1 + round / at.len()]; // two make a session
        let mut client = Running::piped(server.client().args(&paths));
        match is_new {
            true => wait_until("a window is made", || !windows().is_empty()),
            false => wait_until_stuck(),
        }
        let child = server.only_child();
        if killed.contains("child") {
            assert!(child.signal(Signal::SIGKILL));
        }
        if killed.contains("server") {
            server.running().kill();
            server.leave_key();
            let lost = queue_of(server.key).expect("the dead server's queue stays");
            server = Server::start_on(server.key, &restart);
            assert!(!exists(lost) && queue_of(server.key).is_some());
            assert!(server.log().contains("removed what dead servers left under the key"));
        }
        if killed.contains("client") {
            client.kill();
        } else {
            let client = client.finish();
            assert_eq!((client.code(), &*client.stderr), (Some(0), ""), "{killed}");
            assert!(client.stdout == file.repeat(paths.len()), "{killed}");
        }
        wait_until("its child has ended", || !child.lives());
        server.wait_until_idle();
        if !is_new {
            wait_until_gone(); // without a reaper
        }
        reap(&[]).success();
        wait_until_gone();
        assert_eq!(reply_queues(), [], "{killed}");
    }
    server.stop();
}

#[in_own_namespace]
fn a_client_that_attaches_and_reads_no_more_is_given_up() {
    let (server, _folder, _) = serve_quietly(8 << 20, &["--stall-timeout", "1s"]);
    let requests = queue_of(server.key).unwrap();
    for (is_attached, is_killed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut session = RawSession::with_windows(requests, &fetch("/file"));
        let child = server.only_child();
        let part = first_window(&mut session);
        let window = SharedMemory::from_id(part.segment);
        let attached = is_attached.then(|| window.attach_read_only().unwrap());
        if is_killed {
            assert!(child.signal(Signal::SIGKILL));
        }
        server.wait_until_idle();
        assert_eq!(windows().len(), usize::from(is_attached));
        drop(attached);
        wait_until_gone();
    }
    assert_eq!(server.log().matches("client stalled").count(), 2, "{}", server.log());
    server.stop();
}

#[in_own_namespace]
fn windows_that_dead_children_left_are_removed() {
    let make = |mode| SharedMemory::create(Key::PRIVATE, 4096, mode).unwrap();
    in_dead_process(|| _ = make(WINDOW_MODE));
    let attached = windows()[0].0.attach_read_only().unwrap();
    in_dead_process(|| _ = make(WINDOW_MODE));
    in_dead_process(|| std::mem::forget(make(WINDOW_MODE).attach()));
    let others = [WINDOW_MODE, Mode::new(0o600)].map(make);
    assert_eq!(windows().len(), 4);
    for keeps in [&["--older-than", "1h"][..], &["--dry-run"], &["--uid", "64999"]] {
        assert_eq!((reap(keeps).stderr.as_str(), windows().len()), ("", 4), "{keeps:?}");
    }
    let told = reap(&[]);
    assert_eq!(told.stderr, "mqfs-reap: removed 2 segments of shared memory as well\n");
    // One is used, and the maker of the other lives.
    assert_eq!(windows().len(), 2);
    drop(attached);
    others.into_iter().chain([windows()[0].0]).for_each(|memory| _ = memory.remove());
}
