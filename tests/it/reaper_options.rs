//! `mqfs-reap --check`, `--older-than`, `--uid`, and wrong options.

use std::time::{Duration, Instant};

use mqfs::reaper::{Action, Policy, remove};
use mqfs::wire::{LEASE_TYPE, REPLY_QUEUE_MODE};
use nix::unistd::{Uid, getpid, setuid};
use sysv_ipc::{Key, Lock, MessageBuffer, MessageType, Mode, OwnedQueue, Queue};

use crate::support::{
    ForEverybody, SOMEBODY, Verdicts, all_queues, as_root_in_own_namespace, dead_owner, exists,
    fails, give, in_dead_process, lease_of_owner, leased, owner_of, program, reap, unique_key,
    wait_until,
};

const REMOVED: [&str; 3] = ["orphan", "owner is gone", "removed"];
const RECENT: [&str; 3] = ["recent", "owner is gone, but it was used recently", "kept"];

/// `mqfs-reap --json` with more arguments.
fn verdicts(arguments: &[&str]) -> Verdicts {
    Verdicts::of(program("mqfs-reap").arg("--json").args(arguments))
}

/// A queue with a dead owner, made by this user.
fn orphan_of(uid: u32) -> Queue {
    let before = all_queues();
    let lease = lease_of_owner(dead_owner()).encode();
    in_dead_process(|| {
        setuid(Uid::from_raw(uid)).unwrap();
        let queue = Queue::create(Key::PRIVATE, REPLY_QUEUE_MODE).unwrap();
        queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease)).unwrap();
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
    assert_eq!(verdicts(&["--older-than", "1h"]).on(*orphan), RECENT);
    assert_eq!(
        verdicts(&["--older-than", "1h"]).on(*requests),
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
    assert_eq!(verdicts(&["--older-than", "1h"]).on(*orphan), RECENT);
    assert_eq!(verdicts(&[]).on(*orphan), REMOVED);
}

#[as_root_in_own_namespace]
fn only_the_users_own_queues_are_examined() {
    let roots = leased(dead_owner());
    // That user owns it, but did not create it.
    let given = leased(dead_owner());
    give(*given, SOMEBODY);
    let theirs = orphan_of(SOMEBODY);
    let others = orphan_of(SOMEBODY - 1);

    let seen = verdicts(&["--uid", &SOMEBODY.to_string()]);

    assert_eq!(seen.0.len(), 1);
    assert_eq!(seen.on(theirs), REMOVED);
    assert_eq!(reap(&["--check", "--uid", &SOMEBODY.to_string()]).code(), Some(0));
    for root in ["root", "0"] {
        let seen = verdicts(&["-n", "--uid", root]);
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
