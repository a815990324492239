//! `mqfs-reap` finds every orphan; `--check`, `--older-than`, `--uid`, `--watch`.
//!
//! These tests need a namespace of their own: elsewhere they would remove orphans of other tests
//! and users.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use mqfs::reaper::{Action, Policy, remove};
use mqfs::wire::REPLY_QUEUE_MODE;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, getpid, setuid};
use sysv_ipc::{Key, Lock, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, SharedMemory};

use crate::reaper_keeps::{foreign, used_by_the_dead};
use crate::support::*;

#[as_root_in_own_namespace]
fn only_the_queue_of_a_killed_client_is_removed_and_none_of_stopped_processes() {
    let quiet = QuietServer::start();
    let requests = queue_of(quiet.server.key).unwrap();
    let [mut dying, living, frozen] = [(); 3].map(|()| Stuck::start(&mut quiet.client()));
    let stopped = quiet.stop_children();
    frozen.client.freeze();
    quiet.server.freeze();
    dying.client.kill();

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
        let mut server = server_of(key);
        let mut server = Running::start(server.stdout(Stdio::null()).stderr(Stdio::null()));
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
    let living = Server::start(&["--reap-interval", "1h"]); // it removes nothing meanwhile
    living.fetch("/proc/version"); // it removes orphans before its first request
    living.wait_until_idle();
    let programs = ForEverybody::new();
    for (queue_is_left, was_counting) in [(true, true), (true, false), (false, true)] {
        let key = unique_key();
        let mut killed = Server::start_on::<&str>(key, &[]);
        killed.leave_key();
        killed.fetch("/proc/version"); // before that, its child that removes orphans has begun
        killed.wait_until_idle();
        killed.running().kill();
        if !was_counting {
            // As if it had been killed before it wrote the first word.
            SharedMemory::open(key).unwrap().attach().unwrap().copy_from(0, &[0; 8]);
        }
        if !queue_is_left {
            queue_of(key).unwrap().remove().unwrap();
        }
        run(&mut programs.program("mqfs-reap", SOMEBODY)).success();
        // While there is a queue, only the lock proves that its server is dead.
        reap(&["--older-than", "1h"]).success();
        reap(&["-n"]).success();
        assert_eq!(besides_queues(), [2, 2], "{queue_is_left} {was_counting}");
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
    let text = text(program("mqfs-reap").arg("--json"));
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

const REMOVED: [&str; 3] = ["orphan", "owner is gone", "removed"];
const RECENT: [&str; 3] = ["recent", "owner is gone, but it was used recently", "kept"];

/// A queue with a dead owner, made by this user.
fn orphan_of(uid: u32) -> Queue {
    let before = all_queues();
    let lease = lease_of_owner(dead_owner()).encode();
    in_dead_process(|| {
        setuid(Uid::from_raw(uid)).unwrap();
        marked_with(&lease).release();
    });
    let new = |queue: &Queue| before.iter().all(|(other, _)| other != queue);
    all_queues().into_iter().map(|(queue, _)| queue).find(new).unwrap()
}

#[as_root_in_own_namespace]
fn check_shows_only_orphans_and_removes_nothing_and_without_orphans_it_is_silent() {
    fails(program("mqfs-reap").arg("--check"), 0, "");
    let alive = leased(owner_of(getpid().as_raw()));
    let _foreign = OwnedQueue::private(Mode::new(0o600)).unwrap();
    let orphan = leased(dead_owner());
    for more in [&[][..], &["--json"]] {
        fails(program("mqfs-reap").args(["--check", "--older-than", "1h"]).args(more), 0, "");
    }
    for more in [&[][..], &["-n"], &["--dry-run"]] {
        let table = reap(&[&["--check"], more].concat());
        assert_eq!((table.code(), &*table.stderr), (Some(1), ""));
        let table = String::from_utf8(table.stdout).unwrap();
        let [header, row] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
        assert!(header.starts_with(" ") || header.starts_with("ID"), "{table}");
        assert!(row.contains("orphan: owner is gone") && row.ends_with("would remove"));
    }
    let objects = reap(&["--check", "--json"]);
    assert_eq!(objects.code(), Some(1));
    let row: serde_json::Value = serde_json::from_slice(&objects.stdout).unwrap();
    assert_eq!((&row["id"], &row["action"]), (&orphan.id().get().into(), &"would remove".into()));

    assert!(exists(*orphan) && exists(*alive));
    assert_eq!(Verdicts::now().removed(), [orphan.id()]);
}

#[as_root_in_own_namespace]
fn orphan_is_kept_until_it_is_old_enough() {
    let made = Instant::now();
    let orphan = leased(dead_owner());
    // The queue of a killed server.
    let key = unique_key();
    let requests = OwnedQueue::create(key, Mode::new(0o733)).unwrap();
    Lock::open_or_create(key, Mode::new(0o644)).unwrap();
    assert_eq!(Verdicts::with(&["--older-than", "1h"]).on(*orphan), RECENT);
    assert_eq!(
        Verdicts::with(&["--older-than", "1h"]).on(*requests),
        ["recent", "no server holds the key's lock, but it was used recently", "kept",]
    );
    wait_until("they are old enough", || {
        reap(&["--older-than", "2s"]).success();
        !exists(*orphan) && !exists(*requests)
    });
    assert!(made.elapsed() >= Duration::from_secs(2), "{:?}", made.elapsed());
}

#[as_root_in_own_namespace]
fn use_resets_an_orphans_age_even_after_the_verdict() {
    let orphan = leased(dead_owner());
    let policy = Policy::new().older_than(Duration::from_secs(1));
    let mut findings = vec![];
    wait_until("it is old enough", || {
        findings = policy.survey().unwrap();
        findings[0].verdict.is_orphan()
    });
    // The child that serves a dead client.
    let message = MessageBuffer::with_text(MessageType::new(2).unwrap(), b"data");
    orphan.try_send(&message).unwrap();
    assert_eq!(remove(&findings[0]), Action::Changed);
    assert!(exists(*orphan));
    assert_eq!(Verdicts::with(&["--older-than", "1h"]).on(*orphan), RECENT);
    assert_eq!(Verdicts::with(&[]).on(*orphan), REMOVED);
}

#[as_root_in_own_namespace]
fn only_the_users_own_queues_are_examined() {
    let roots = leased(dead_owner());
    // That user owns it, but did not create it.
    let given = leased(dead_owner());
    give(*given, SOMEBODY).unwrap();
    let theirs = orphan_of(SOMEBODY);
    let others = orphan_of(SOMEBODY - 1);

    let seen = Verdicts::with(&["--uid", &SOMEBODY.to_string()]);

    assert_eq!(seen.0.len(), 1);
    assert_eq!(seen.on(theirs), REMOVED);
    assert_eq!(reap(&["--check", "--uid", &SOMEBODY.to_string()]).code(), Some(0));
    for root in ["root", "0"] {
        let seen = Verdicts::with(&["-n", "--uid", root]);
        assert_eq!(seen.0.len(), 2);
        assert_eq!(seen.on(*roots), ["orphan", "owner is gone", "would remove"]);
    }
    assert_eq!(reap(&["--check", "--uid", "root"]).code(), Some(1));
    assert!(exists(*roots) && exists(*given) && exists(others));
    // Without the option, a user's reaper removes what that user made or owns.
    let theirs = orphan_of(SOMEBODY);
    let seen = Verdicts::of(ForEverybody::new().program("mqfs-reap", SOMEBODY).arg("--json"));
    let not_seen = ["alive", "another user's, and not readable", "kept"];
    assert_eq!([theirs, *given].map(|queue| seen.on(queue)), [REMOVED; 2]);
    assert_eq!([*roots, others].map(|queue| seen.on(queue)), [not_seen; 2]);
    assert_eq!(Verdicts::now().removed().len(), 2);
}

/// Waits for the end of its first pass.
fn asleep(running: &Running) {
    wait_until("it sleeps", || {
        let at = fs::read_to_string(format!("/proc/{}/wchan", running.pid()));
        state_of(running.pid()) == Some('S') && at.is_ok_and(|at| at.contains("poll"))
    });
}

fn next_line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

#[as_root_in_own_namespace]
fn watch_prints_one_line_for_each_orphan_at_once() {
    let alive = leased(owner_of(getpid().as_raw()));
    for (options, action) in [(&[][..], "removed"), (&["-n"], "would remove"), (&["--json"], "")] {
        let arguments = [options, &["--watch", "100ms"]].concat();
        let mut running = Running::piped(program("mqfs-reap").args(arguments));
        let mut output = BufReader::new(running.child().stdout.take().unwrap());
        asleep(&running);
        let mut orphans = Vec::new(); // with -n, each pass finds the first again
        for _ in 0..2 {
            let orphan = leased(dead_owner());
            let line = next_line(&mut output);
            let (id, mut time) = (orphan.id().get(), line.split(' ').next().unwrap().to_owned());
            if action.is_empty() {
                let row: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!((&row["id"], &row["action"]), (&id.into(), &"removed".into()));
                time = row["time"].as_str().unwrap().to_owned();
            } else {
                let expected = format!("{time} queue {id}: {action}: owner is gone (");
                assert!(line.starts_with(&expected), "{line}");
            }
            assert!(time.ends_with('Z') && time.contains('T'), "{line}");
            assert_eq!(exists(*orphan), options == ["-n"]);
            orphans.push(orphan);
        }
        running.signal(Signal::SIGTERM);
        assert_eq!(next_line(&mut output), "");
        let finished = running.finish();
        assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
        assert!(exists(*alive));
    }
}

#[as_root_in_own_namespace]
fn every_signal_and_a_closed_output_end_watch_at_once() {
    for signal in [Some(Signal::SIGINT), Some(Signal::SIGTERM), Some(Signal::SIGHUP), None] {
        let mut running = Running::piped(program("mqfs-reap").args(["--watch", "1h"]));
        asleep(&running);
        let told = Instant::now();
        match signal {
            Some(signal) => running.signal(signal),
            None => drop(running.child().stdout.take()),
        }
        let finished = running.finish();
        assert!(told.elapsed() < Duration::from_secs(10), "{signal:?}: {:?}", told.elapsed());
        let code = if signal.is_some() { 0 } else { 141 };
        assert_eq!((finished.code(), &*finished.stderr), (Some(code), ""), "{signal:?}");
        assert!(finished.stdout.is_empty(), "nothing was done");
    }
}

#[as_root_in_own_namespace]
fn watch_goes_on_after_a_stop_and_under_nohup() {
    let mut nohup = by(&["nohup"], program("mqfs-reap").args(["--watch", "100ms"]));
    let mut running = Running::start(nohup.stdout(Stdio::piped()).stderr(Stdio::null()));
    let _output = running.child().stdout.take().unwrap();
    asleep(&running);
    running.signal(Signal::SIGHUP);
    running.freeze();
    running.signal(Signal::SIGCONT);
    let orphan = leased(dead_owner());
    wait_until("it is still at work", || !exists(*orphan));
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().code(), Some(0));
}

#[as_root_in_own_namespace]
fn watch_goes_on_when_its_output_cannot_be_written() {
    let mut reaper = with(program("mqfs-reap"), &["--watch", "100ms"]);
    let mut running = Running::start(reaper.stdout(full()).stderr(Stdio::piped()));
    for _ in 0..2 {
        let orphan = leased(dead_owner());
        wait_until("it is at work", || !exists(*orphan));
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(0));
    let stderr = running.finish().stderr;
    assert!(
        stderr.contains("mqfs-reap: cannot write standard output: No space left on device"),
        "{stderr}"
    );
}

#[as_root_in_own_namespace]
fn watch_reports_each_orphan_that_it_may_not_remove_once() {
    let roots = used_by_the_dead(foreign());
    let programs = ForEverybody::new();
    let arguments = ["--foreign", "--older-than", "1ms", "--watch", "100ms"];
    let mut running = Running::piped(programs.program("mqfs-reap", SOMEBODY).args(arguments));
    let mut output = BufReader::new(running.child().stdout.take().unwrap());
    let mut line = || next_line(&mut output);
    let first = line();
    assert!(first.contains(&format!("queue {}: not permitted: ", roots.id())), "{first}");
    // An orphan that it may remove, in a later pass, which finds the first one again.
    let theirs = leased(dead_owner());
    give(*theirs, SOMEBODY).unwrap();
    let second = line();
    assert!(second.contains(&format!("queue {}: removed: ", theirs.id())), "{second}");
    running.signal(Signal::SIGTERM);
    assert_eq!(line(), "");
    assert_eq!(running.wait().code(), Some(0));
}
