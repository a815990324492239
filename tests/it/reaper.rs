//! `mqfs-reap` finds every orphan.
//!
//! These tests need a namespace of their own: elsewhere they would remove orphans of other tests
//! and users.

use std::process::Stdio;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use mqfs::reaper::Policy;
use mqfs::wire::REPLY_QUEUE_MODE;
use nix::sys::signal::Signal;
use nix::unistd::getpid;
use sysv_ipc::{Key, Lock, Mode, Queue, SharedMemory};

use crate::support::{
    ForEverybody, QuietServer, Running, SOMEBODY, Server, Stuck, Verdicts, all_queues,
    as_root_in_own_namespace, clear, exists, in_dead_process, leased, listed, owner_of, program,
    queue_of, reap, run, stat_of, state_of, unique_key, wait_until,
};

#[as_root_in_own_namespace]
fn only_the_queue_of_a_killed_client_is_removed_and_none_of_stopped_processes() {
    let quiet = QuietServer::start();
    let requests = queue_of(quiet.server.key).unwrap();
    let [mut dying, living, frozen] = [(); 3].map(|()| Stuck::start(&mut quiet.client()));
    let stopped = quiet.stop_children();
    frozen.client.freeze();
    quiet.server.freeze();
    dying.kill();

    let verdicts = Verdicts::now();

    assert_eq!(verdicts.on(dying.queue), ["orphan", "owner is gone", "removed"]);
    for queue in [living.queue, frozen.queue] {
        assert_eq!(verdicts.on(queue), ["alive", "owner is running", "kept"]);
    }
    assert_eq!(verdicts.on(requests), ["alive", "its server is running", "kept"]);
    assert_eq!(verdicts.removed(), [dying.queue.id()]);
    assert!(!exists(dying.queue));
    drop(stopped);
    quiet.server.signal(Signal::SIGCONT);
    frozen.client.signal(Signal::SIGCONT);
    assert!(living.finish() == quiet.file && frozen.finish() == quiet.file, "they are whole");
    quiet.stop();
}

#[as_root_in_own_namespace]
fn servers_killed_at_any_point_leave_no_queue_and_no_held_lock() {
    let key = unique_key();
    for step in 0..40_u64 {
        let mut server = program("mqfs-server");
        server.args(["-k", &key.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Running::start(&mut server);
        thread::sleep(Duration::from_micros(step * step * 4));
        server.kill();
        Verdicts::now();
        assert_eq!(queue_of(key), None, "step {step}");
    }
    let next = Server::start_on::<&str>(key, &[]);
    assert_eq!(next.fetch("/proc/sys/kernel/ostype"), b"Linux\n");
    next.stop();
}

#[as_root_in_own_namespace]
fn lock_and_counters_of_a_killed_server_go_with_its_queue_and_no_others() {
    let besides_queues = || ["sem", "shm"].map(listed);
    let living = Server::start::<&str>(&[]);
    living.wait_until_idle();
    let programs = ForEverybody::new();
    for queue_is_left in [true, false] {
        let key = unique_key();
        let mut killed = Server::start_on::<&str>(key, &[]);
        killed.leave_key();
        killed.wait_until_idle();
        killed.running().kill();
        if !queue_is_left {
            queue_of(key).unwrap().remove().unwrap();
        }
        run(&mut programs.program("mqfs-reap", SOMEBODY)).success();
        // While there is a queue, only the lock proves that its server is dead.
        reap(&["--older-than", "1h"]).success();
        reap(&["-n"]).success();
        assert_eq!(besides_queues(), [2, 2]);
        reap(&[]).success();
        assert_eq!((besides_queues(), queue_of(key)), ([1, 1], None));
    }
    assert!(!living.fetch("/proc/version").is_empty());
    assert_eq!(run(stat_of(living.key).arg("--json")).code(), Some(0), "its counters are there");
    living.stop();
    // Another program's: a free semaphore, and a segment that looks like counters from outside.
    let key = unique_key();
    Lock::open_or_create(key, Mode::new(0o644)).unwrap();
    SharedMemory::create(key, 4096, Mode::new(0o755)).unwrap();
    reap(&[]).success();
    assert_eq!(besides_queues(), [1, 1]);
    clear(key);
}

#[as_root_in_own_namespace]
fn server_starts_while_reapers_remove_what_its_predecessor_left() {
    let key = unique_key();
    let (end, ended) = channel::<()>();
    let reaper = thread::spawn(move || {
        while ended.try_recv() == Err(TryRecvError::Empty) {
            Policy::new().remove_leftovers().unwrap();
        }
    });
    for _ in 0..20 {
        let mut server = Server::start_on::<&str>(key, &[]);
        assert_eq!(Lock::open(key).unwrap().is_held(), Ok(true));
        server.leave_key();
        server.running().kill();
        let _ = queue_of(key).map(Queue::remove);
    }
    drop(end);
    reaper.join().unwrap();
    reap(&[]).success();
}

#[as_root_in_own_namespace]
fn transfer_of_a_killed_server_goes_on_while_its_request_queue_is_removed() {
    let mut quiet = QuietServer::start();
    let stuck = Stuck::start(&mut quiet.client());
    let child = quiet.server.only_child().pid;
    let requests = queue_of(quiet.server.key).unwrap();
    quiet.server.running().kill();

    let verdicts = Verdicts::now();

    assert_eq!(verdicts.removed(), [requests.id()]);
    assert_eq!(verdicts.on(stuck.queue), ["alive", "owner is running", "kept"]);
    assert!(stuck.finish() == quiet.file, "the transfer is whole");
    wait_until("the child ends", || state_of(child).is_none_or(|s| s == 'Z'));
}

#[as_root_in_own_namespace]
fn marked_queue_that_was_never_used_is_an_orphan_after_ten_seconds() {
    let made = Instant::now();
    in_dead_process(|| {
        Queue::create(Key::PRIVATE, REPLY_QUEUE_MODE).unwrap();
    });
    let queue = all_queues()[0].0;
    assert_eq!(Verdicts::now().on(queue), ["alive", "just made", "kept"]);
    let programs = ForEverybody::new();
    let as_somebody =
        |option: &[&str]| run(programs.program("mqfs-reap", SOMEBODY).arg("--json").args(option));
    wait_until("another user finds it, but may not remove it", || {
        let verdicts = Verdicts::in_text(as_somebody(&[]).success());
        verdicts.on(queue) == ["orphan", "owner died before using it", "not permitted"]
    });
    // The same without removing, and it is no alarm of that user's.
    let shown = Verdicts::in_text(as_somebody(&["-n"]).success());
    assert_eq!(shown.on(queue), ["orphan", "owner died before using it", "not permitted"]);
    assert_eq!(as_somebody(&["--check"]).success(), b"");
    assert_eq!(reap(&["--check"]).code(), Some(1), "root is told");
    // The kernel stores the creation time in whole seconds.
    assert!(made.elapsed() >= Duration::from_secs(9), "{:?}", made.elapsed());
    let removed = ["orphan", "owner died before using it", "removed"];
    assert_eq!(Verdicts::now().on(queue), removed);
}

#[as_root_in_own_namespace]
fn json_prints_one_object_per_line() {
    let owner = owner_of(getpid().as_raw());
    let queue = leased(owner);
    let text = String::from_utf8(reap(&["--json"]).success()).unwrap();
    let mut row: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    for field in ["age_seconds", "idle_seconds"] {
        assert!(row[field].take().as_u64().unwrap() < 30, "{text}");
    }
    let expected = serde_json::json!({
        "id": queue.id().get(), "key": "0x00000000", "uid": 0, "cuid": 0, "mode": "0711",
        "pid": owner.pid, "last_sender": owner.pid, "last_receiver": null,
        "age_seconds": null, "idle_seconds": null, "messages": 1, "bytes": 64,
            "capacity": queue.status().unwrap().max_bytes,
        "verdict": "alive", "reason": "owner is running", "action": "kept",
    });
    assert_eq!(row, expected);
}
