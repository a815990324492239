//! The shared memory of the counters: its owner, its lifetime, and that it cannot harm the server.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use sysv_ipc::{Key, Mode, OwnedQueue, SharedMemory};

use super::{look, server, wait_for};
use crate::support::{
    ATTACKER, ForEverybody, OPERATOR, Server, as_root_in_own_namespace, as_user, errno_of,
    in_own_namespace, queue_of, run, stat_of, text, unique_key, wait_until,
};

/// A segment of this process. Removed with its handle.
struct Segment(SharedMemory);

impl Segment {
    fn create(key: Key, mode: u16) -> Self {
        Self(SharedMemory::create(key, 4096, Mode::new(mode)).unwrap())
    }

    /// A segment that another user made.
    fn of(uid: u32, key: Key, mode: u16) -> Self {
        let made = as_user(uid, || {
            SharedMemory::create(key, 4096, Mode::new(mode)).map(drop).map_err(errno_of)
        });
        assert_eq!(made, Ok(()));
        Self(SharedMemory::open(key).unwrap())
    }

    fn exists(&self) -> bool {
        self.0.status().is_ok_and(|status| !status.is_removed)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

/// Kills a server, and leaves what it left under its key.
pub(super) fn stop_alone(mut server: Server) {
    server.signal(Signal::SIGTERM);
    assert!(server.running().wait().success());
    server.make_way();
}

#[in_own_namespace]
fn the_segment_lives_as_long_as_the_server_and_all_may_read_it() {
    let (server, _folder) = server();
    let segment = SharedMemory::open(server.key).unwrap();
    let status = segment.status().unwrap();
    assert_eq!((status.permissions.mode, status.size), (Mode::new(0o755), 4096));
    if nix::unistd::geteuid().is_root() {
        let errno = |outcome: Result<(), sysv_ipc::Error>| outcome.map_err(errno_of);
        let write = as_user(ATTACKER, || errno(segment.attach().map(drop)));
        assert_eq!(write, Err(Errno::EACCES));
        let read = as_user(ATTACKER, || errno(segment.attach_read_only().map(drop)));
        assert_eq!(read, Ok(()));
    }
    let key = server.key;
    server.stop();
    assert!(SharedMemory::open(key).is_err(), "it goes with the server");
}

#[in_own_namespace]
fn counters_of_a_killed_server_stay_until_the_next_server() {
    let (mut first, folder) = server();
    first.fetch("/small");
    wait_for(first.key, "complete", 1);
    first.wait_until_idle();
    first.running().kill();
    let finished = run(&mut stat_of(first.key));
    assert_eq!(finished.code(), Some(1));
    let table = String::from_utf8(finished.stdout).unwrap();
    assert!(table.contains("COUNTERS of a dead server (nobody holds"), "{table}");
    let seen = look(first.key);
    assert_eq!((&seen["server"], &seen["counters_are_current"]), (&"dead".into(), &false.into()));
    assert_eq!(seen["counters"]["complete"], 1);
    let dead = run(stat_of(first.key).arg("--prometheus"));
    assert_eq!((dead.code(), &*dead.stderr), (Some(1), ""));
    let (page, key) = (String::from_utf8(dead.stdout).unwrap(), first.key);
    assert!(page.contains(&format!("mqfs_up{{key=\"{key}\"}} 0\n")), "{page}");
    assert!(page.contains(&format!("mqfs_requests_total{{key=\"{key}\"}} 1\n")), "{page}");

    let next = Server::start_on(first.key, &["--root".as_ref(), folder.path()]);
    let seen = look(next.key);
    assert_eq!(seen["counters"]["complete"], 0);
    assert_eq!(seen["counters"]["server_pid"], next.pid());
    assert_eq!(seen["counters_are_current"], true);
    assert!(!next.log().contains("WARN"), "{}", next.log());
    first.make_way();

    // Without a queue under the key, or with another.
    let mut next = next;
    next.fetch("/small"); // its reaper would remove the queue
    next.wait_until_idle();
    next.running().kill();
    queue_of(next.key).unwrap().remove().unwrap();
    let dead = |status, why| {
        let told = run(stat_of(next.key).arg("--json"));
        assert_eq!(told.code(), Some(status));
        assert!(String::from_utf8(told.stdout).unwrap().contains(why), "{why}");
    };
    dead(2, "there is no queue under the key");
    let _other = OwnedQueue::create(next.key, Mode::new(0o711)).unwrap();
    dead(1, "another queue stands under the key");
}

#[in_own_namespace]
fn a_recreated_request_queue_is_recorded_in_the_segment() {
    let (server, _folder) = server();
    server.fetch("/small");
    wait_for(server.key, "complete", 1);
    let lost = queue_of(server.key).unwrap();
    lost.remove().unwrap();
    wait_until("it has a new queue", || queue_of(server.key).is_some_and(|queue| queue != lost));
    wait_until("the counters are current", || look(server.key)["counters_are_current"] == true);
    let seen = look(server.key);
    assert_eq!(seen["counters"]["queue"], queue_of(server.key).unwrap().id().get());
    assert_eq!(seen["counters"]["complete"], 1, "what was counted stays");
    server.stop();
}

#[in_own_namespace]
fn changes_of_the_segment_do_not_affect_the_server() {
    let (server, _folder) = server();
    let memory = SharedMemory::open(server.key).unwrap().attach().unwrap();
    for value in [u64::MAX, 0, 1 << 63, 64] {
        // Counters may be any numbers. Without the magic and the version, there are none.
        for (first, are_shown) in [(2, true), (0, false)] {
            memory.words()[first..].iter().for_each(|word| word.store(value, Relaxed));
            assert_eq!(server.fetch("/small"), b"small");
            assert_eq!(run(server.client().arg("/none")).code(), Some(1));
            assert_eq!(look(server.key)["counters"].is_object(), are_shown);
            assert!(!run(stat_of(server.key).arg("--prometheus")).stdout.is_empty());
            assert!(!run(&mut stat_of(server.key)).stdout.is_empty());
        }
        let [magic, version] = [u64::from_ne_bytes(*b"mqfsstat"), 1];
        memory.words()[0].store(magic, Relaxed);
        memory.words()[1].store(version, Relaxed);
    }
    drop(memory);
    server.stop();
}

#[as_root_in_own_namespace]
fn roots_server_removes_a_segment_that_another_user_made() {
    for mode in [0o644, 0o755, 0o600] {
        let key = unique_key();
        let squat = Segment::of(ATTACKER, key, mode);
        let server = Server::start_on(key, &["--root", "/proc"]);
        assert!(!squat.exists());
        assert!(server.log().contains("removed another user's shared memory"), "{}", server.log());
        assert_eq!(look(key)["counters"]["requests"], 0);
        std::mem::forget(squat); // its id may be the server's by now
        server.stop();
    }
}

#[as_root_in_own_namespace]
fn an_unprivileged_server_works_without_a_segment() {
    let programs = ForEverybody::new();
    let folder = crate::support::public_folder();
    fs::write(folder.path().join("file"), "file").unwrap();
    for mode in [0o755, 0o666, 0o600] {
        let key = unique_key();
        let squat = Segment::of(ATTACKER, key, mode);
        let mut command = programs.server(key, OPERATOR);
        command.args(["--reap-interval", "200ms", "--root"]).arg(folder.path());
        let server = Server::start_as(key, &mut command);
        assert_eq!(run(programs.client(key, OPERATOR).arg("/file")).success(), b"file");
        assert_eq!(squat.0.status().unwrap().attached, 0, "never attached");
        let seen = look(key);
        assert_eq!(seen["counters"], serde_json::Value::Null);
        let note = format!("not trusted: the segment belongs to uid {ATTACKER}");
        assert_eq!(seen["counters_note"], note);
        assert!(text(&mut stat_of(key)).contains(&format!("COUNTERS: {note}")));
        assert!(squat.exists(), "it is not the server's to remove");
        drop(squat);
        wait_until("it counts", || look(key)["counters"]["requests"] == 0);
        assert_eq!(run(programs.client(key, OPERATOR).arg("/file")).success(), b"file");
        wait_for(key, "complete", 1);
        assert_eq!(server.log().matches("nothing is counted").count(), 1, "{}", server.log());
        server.stop();
    }
}

#[in_own_namespace]
fn a_segment_of_another_program_of_the_same_user_is_left_alone() {
    let key = unique_key();
    let others = Segment::create(key, 0o644);
    let server = Server::start_on(key, &["--root", "/proc"]);
    assert!(server.log().contains("is another program's"), "{}", server.log());
    assert!(!server.fetch("/version").is_empty());
    assert!(others.exists());
    let table = text(&mut stat_of(key));
    assert!(table.contains("COUNTERS: the segment under this key holds no known"), "{table}");
    stop_alone(server);
    assert!(others.exists());
}
