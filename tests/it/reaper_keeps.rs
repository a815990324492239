//! `mqfs-reap` never removes these queues, not even among very many or beside another reaper.

use std::collections::BTreeSet;

use mqfs::reaper::{Action, Policy, remove};
use mqfs::wire::{Lease, OwnerId, REPLY_QUEUE_MODE};
use nix::unistd::{Uid, getpid, setuid};
use sysv_ipc::{
    Acquire, Key, Lock, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, QueueId, QueueLimits,
    Select,
};

use crate::reaper_foreign::foreign;
use crate::support::{
    Running, Verdicts, all_queues, as_root_in_own_namespace, clear, dead_owner, exists,
    in_dead_process, lease_of_owner, leased, let_next_queue_have, marked_with, owner_of, program,
    queue_of, sleeper, unique_key,
};

const MESSAGE: MessageType = MessageType::new(1).unwrap();

/// The modes of other software's queues.
const FOREIGN: [u16; 7] = [0o600, 0o666, 0o777, 0o644, 0o755, 0o620, 0o000];

#[as_root_in_own_namespace]
fn queues_of_other_software_are_foreign_whatever_their_mode() {
    // Dead processes made and used them.
    in_dead_process(|| {
        for mode in FOREIGN {
            for key in [Key::PRIVATE, unique_key()] {
                let queue = Queue::create(key, Mode::new(mode)).unwrap();
                queue.try_send(&MessageBuffer::with_text(MESSAGE, b"kept")).unwrap();
                queue.try_send(&MessageBuffer::with_text(MESSAGE, b"taken")).unwrap();
                let mut taken = MessageBuffer::with_capacity(8);
                queue.try_receive(&mut taken, Select::Any).unwrap();
                Queue::create(Key::PRIVATE, Mode::new(mode)).unwrap();
            }
        }
    });
    // A private queue with the mode of a request queue.
    OwnedQueue::private(Mode::new(0o733)).unwrap().release();
    let queues = all_queues();
    assert_eq!(queues.len(), 4 * FOREIGN.len() + 1);

    let verdicts = Verdicts::now();

    for (queue, _) in &queues {
        assert_eq!(verdicts.on(*queue), ["foreign", "not made by mqfs", "kept"]);
    }
    let ids = |queues: Vec<_>| queues.into_iter().map(|(q, _): (Queue, _)| q.id()).collect();
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (ids(queues), ids(all_queues()));
    assert_eq!(after, before);
    all_queues().iter().for_each(|(queue, _)| queue.remove().unwrap());
}

#[as_root_in_own_namespace]
fn marked_queue_without_a_valid_lease_is_kept() {
    let mut unknown_version = lease_of_owner(dead_owner()).encode();
    let short = unknown_version[..63].to_vec();
    unknown_version[8] = 2;
    let longer = [&unknown_version[..], &[0; 4096]].concat();
    let taken = leased(dead_owner());
    let mut lease = MessageBuffer::with_capacity(Lease::SIZE);
    taken.try_receive(&mut lease, Select::Any).unwrap();
    // With a lease, but not at its head.
    let second = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
    second.try_send(&MessageBuffer::with_text(MESSAGE, b"")).unwrap();
    second.try_send(&lease).unwrap();
    // A lease's bytes in a message of another type.
    let other_type = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
    other_type.try_send(&MessageBuffer::with_text(MESSAGE, lease.text())).unwrap();
    let no_lease = ["alive", "marked, but without a lease", "kept"];
    let unknown = ["alive", "a lease of an unknown version", "kept"];
    let (unknown_version, longer) = (marked_with(&unknown_version), marked_with(&longer));
    let (short, empty) = (marked_with(&short), marked_with(b""));

    let verdicts = Verdicts::now();

    assert_eq!(verdicts.on(*unknown_version), unknown);
    for queue in [&longer, &short, &empty, &taken, &second, &other_type] {
        assert_eq!(verdicts.on(**queue), no_lease);
    }
}

#[as_root_in_own_namespace]
fn lease_of_an_owner_without_identity_is_kept() {
    let dead = dead_owner();
    let alive = owner_of(getpid().as_raw());
    let unidentified = "owner not identified by its lease";
    let unproven = "a process has the owner's pid";
    for (owner, reason) in [
        (OwnerId { pid: 0, ..dead }, unidentified),
        (OwnerId { pid: -1, ..dead }, unidentified),
        (OwnerId { pid: i32::MIN, ..dead }, unidentified),
        (OwnerId { start_time: 0, ..alive }, unproven),
        (OwnerId { time_namespace: 0, start_time: 1, ..alive }, unproven),
    ] {
        let queue = leased(owner);
        assert_eq!(Verdicts::now().on(*queue), ["alive", reason, "kept"], "{owner:?}");
    }
}

type Prepare = fn(Key);

#[as_root_in_own_namespace]
fn request_queue_is_kept_without_a_lock_of_its_owner_and_while_its_receiver_lives() {
    let others_lock = |key: Key| {
        in_dead_process(|| {
            setuid(Uid::from_raw(65_532)).unwrap();
            let semaphore = Lock::open_or_create(key, Mode::new(0o644)).unwrap();
            assert!(matches!(semaphore.try_acquire().unwrap(), Acquire::Acquired));
        });
    };
    let free_lock = |key: Key| {
        Lock::open_or_create(key, Mode::new(0o644)).unwrap();
        let queue = queue_of(key).unwrap();
        queue.try_send(&MessageBuffer::with_text(MESSAGE, b"")).unwrap();
        queue.try_receive(&mut MessageBuffer::with_capacity(8), Select::Any).unwrap();
    };
    let no_lock = "a request queue without a server lock";
    let with_lock: [(Prepare, &str); 3] =
        [(|_| (), no_lock), (others_lock, no_lock), (free_lock, "its last receiver is running")];
    let modes = [0o711, 0o731, 0o713].map(|mode| (mode, with_lock[0]));
    for (mode, (prepare, reason)) in modes.into_iter().chain(with_lock.map(|case| (0o733, case))) {
        let key = unique_key();
        let queue = OwnedQueue::create(key, Mode::new(mode)).unwrap();
        prepare(key);
        assert_eq!(Verdicts::now().on(*queue), ["alive", reason, "kept"], "{mode:o}");
        drop(queue);
        clear(key);
    }
}

#[as_root_in_own_namespace]
fn queue_under_a_reused_id_is_kept() {
    let findings = {
        let _orphan = leased(dead_owner());
        Policy::new().survey().unwrap()
    };
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.verdict.is_orphan());
    let id = finding.queue.id();
    let_next_queue_have(id);
    let other = leased(owner_of(getpid().as_raw()));
    assert_eq!(other.id(), id);

    assert_eq!(remove(finding), Action::Changed);

    assert!(exists(*other));
}

/// As many queues as possible: of living owners, dead owners, reused pids, other programs, and some
/// whose owner is uncertain. Returns those to be kept, and the orphans.
fn crowd(processes: &[Running]) -> (Vec<OwnedQueue>, BTreeSet<QueueId>) {
    let owners: Vec<_> = processes.iter().map(|process| owner_of(process.pid())).collect();
    let dead = dead_owner();
    let me = owner_of(getpid().as_raw());
    let mut unknown = lease_of_owner(dead).encode();
    unknown[8] = 99;
    let (mut kept, mut orphans) = (vec![], BTreeSet::new());
    for n in 0..QueueLimits::current().unwrap().msgmni {
        let turn = n / 5;
        match n % 5 {
            0 => kept.push(leased(owners[turn % owners.len()])),
            1 => drop(orphans.insert(leased(dead).release().id())),
            2 => {
                let reborn = OwnerId { start_time: me.start_time + 1 + turn as u64, ..me };
                orphans.insert(leased(reborn).release().id());
            }
            3 if turn % 2 == 0 => kept.push(marked_with(&unknown)),
            3 => kept.push(leased(OwnerId { pid_namespace: 0, ..me })),
            _ => kept.push(foreign()),
        }
    }
    (kept, orphans)
}

#[as_root_in_own_namespace]
fn in_a_full_namespace_two_reapers_at_once_remove_each_orphan_once_and_nothing_else() {
    let processes: Vec<_> = (0..50).map(|_| sleeper()).collect();
    let (kept, orphans) = crowd(&processes);
    let all = kept.len() + orphans.len();
    assert!(all >= 32_000, "{all}");

    let reapers = [(); 2].map(|()| Running::piped(program("mqfs-reap").arg("--json")));
    let mut removed = Vec::new();
    for reaper in reapers {
        let finished = reaper.finish();
        assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
        let verdicts = Verdicts::in_text(finished.stdout);
        for row in verdicts.0.iter().filter(|row| row["verdict"] == "orphan") {
            let action = row["action"].as_str().unwrap();
            assert!(["removed", "changed meanwhile"].contains(&action), "{row}");
        }
        removed.extend(verdicts.removed());
    }
    assert_eq!(removed.len(), orphans.len(), "each of them once");
    assert!(removed.into_iter().collect::<BTreeSet<_>>() == orphans);
    let left: BTreeSet<_> = all_queues().iter().map(|(queue, _)| queue.id()).collect();
    assert!(left == kept.iter().map(|queue| queue.id()).collect());
}
