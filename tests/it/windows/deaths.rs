//! Whoever is killed: no window is left, and the others go on as they do without one.

use mqfs::wire::WINDOW_MODE;
use nix::sys::signal::Signal;
use sysv_ipc::{Key, Mode, SharedMemory};

use super::{first_window, wait_until_gone};
use crate::support::session::{RawSession, fetch};
use crate::support::{in_dead_process, in_own_namespace, queue_of, reap, serve_quietly, windows};

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
    assert_eq!(told.stderr, "mqfs-reap: also removed 2 semaphores and segments of memory\n");
    // One is used, and the maker of the other lives.
    assert_eq!(windows().len(), 2);
    drop(attached);
    others.into_iter().chain([windows()[0].0]).for_each(|memory| _ = memory.remove());
}
