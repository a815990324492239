//! `mqfs-reap` never removes these queues, not even among very many or beside another reaper.
//! `mqfs-reap --foreign`: queues of other software.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mqfs::reaper::{Action, Policy, remove};
use mqfs::sys::exit_now;
use mqfs::wire::{Lease, OwnerId, REPLY_QUEUE_MODE};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, getpid, setuid};
use sysv_ipc::{
    Acquire, Key, Lock, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, QueueId, QueueLimits,
    ReceiveError, Select,
};

use crate::support::*;

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
                send_and_receive(queue);
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
    send(*second);
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
        send(queue);
        receive(queue);
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

const GONE: &str = "not made by mqfs, its last sender and receiver are gone";
const IN_USE: &str = "not made by mqfs, its last sender or receiver is running";
const UNKNOWN: &str = "not made by mqfs, its last sender or receiver unknown";
/// After a second every queue is older than this; the kernel counts whole seconds.
const AT_ONCE: [&str; 4] = ["-n", "--foreign", "--older-than", "1ms"];

/// A typical queue of other software.
pub fn foreign() -> OwnedQueue {
    OwnedQueue::private(Mode::new(0o600)).unwrap()
}

fn send(queue: Queue) {
    queue.try_send(&MessageBuffer::with_text(MESSAGE, b"text")).unwrap();
}

fn receive(queue: Queue) {
    queue.try_receive(&mut MessageBuffer::with_capacity(8), Select::Any).unwrap();
}

/// Sends twice and receives once, so that a message is left.
fn send_and_receive(queue: Queue) {
    send(queue);
    send(queue);
    receive(queue);
}

/// The same in a process that has ended.
pub fn used_by_the_dead(queue: OwnedQueue) -> OwnedQueue {
    in_dead_process(|| send_and_receive(*queue));
    queue
}

/// The verdicts once every queue is old enough; removes nothing.
fn judged() -> Verdicts {
    let old = used_by_the_dead(foreign());
    let mut verdicts = Verdicts(vec![]);
    wait_until("the youngest queue is old enough", || {
        verdicts = Verdicts::with(&AT_ONCE);
        verdicts.on(*old) == ["orphan", GONE, "would remove"]
    });
    verdicts
}

#[as_root_in_own_namespace]
fn old_private_queue_whose_last_users_are_dead_is_removed_on_request() {
    let queue = used_by_the_dead(foreign());
    let used = Instant::now();
    assert_eq!(Verdicts::now().on(*queue), ["foreign", "not made by mqfs", "kept"]);
    let recent = format!("{GONE}, but it was used recently");
    let default = Verdicts::with(&["--foreign"]);
    assert_eq!(default.on(*queue), ["recent", &recent, "kept"], "an hour is the default");
    wait_until("it is old enough", || {
        let verdicts = Verdicts::with(&["--foreign", "--older-than", "1s"]);
        verdicts.on(*queue) == ["orphan", GONE, "removed"]
    });
    // Minus the time between its use and the reading of the clock.
    assert!(used.elapsed() >= Duration::from_millis(900), "{:?}", used.elapsed());
    assert!(!exists(*queue));
}

#[as_root_in_own_namespace]
fn only_a_private_queue_that_is_closed_to_others_and_used_by_the_dead_is_an_orphan() {
    let with = |mode| used_by_the_dead(OwnedQueue::private(Mode::new(mode)).unwrap());
    let keyed = |mode| used_by_the_dead(OwnedQueue::create(unique_key(), Mode::new(mode)).unwrap());
    let unread = foreign(); // as if a living client had not read yet
    in_dead_process(|| send(*unread));
    let [sender_lives, receiver_lives] = [(); 2].map(|()| used_by_the_dead(foreign()));
    send(*sender_lives);
    receive(*receiver_lives);
    let given = foreign();
    give(*given, SOMEBODY).unwrap();
    let mut open = Vec::from([0o660, 0o606, 0o620, 0o602, 0o640, 0o604, 0o733].map(with));
    open.push(used_by_the_dead(given));
    let under_a_key = "not made by mqfs, and under a key";
    let cases = [
        (vec![foreign(), unread], "foreign", UNKNOWN),
        (vec![sender_lives, receiver_lives], "foreign", IN_USE),
        (vec![keyed(0o600)], "foreign", under_a_key),
        (vec![keyed(0o733)], "alive", "a request queue without a server lock"),
        (vec![with(0o711)], "alive", "marked, but without a lease"),
        (open, "foreign", "not made by mqfs, and open to other users"),
        (Vec::from([0o600, 0o700, 0o200].map(with)), "orphan", GONE),
    ];
    let verdicts = judged();
    for (queues, verdict, reason) in cases {
        let action = if verdict == "orphan" { "would remove" } else { "kept" };
        for queue in queues {
            assert_eq!(verdicts.on(*queue), [verdict, reason, action]);
        }
    }
}

#[as_root_in_own_namespace]
fn queue_whose_last_receiver_is_a_living_thread_is_kept() {
    let queue = foreign();
    let (received, told) = mpsc::channel();
    let (end, go_on) = mpsc::channel::<()>();
    let handle = *queue;
    let thread = thread::spawn(move || {
        handle.receive(&mut MessageBuffer::with_capacity(8), Select::Any).unwrap();
        received.send(sysv_ipc::Pid::from_raw(nix::unistd::gettid().as_raw())).unwrap();
        let _ = go_on.recv();
    });
    // Only a receiver that already waits is recorded by its thread id: pipelined_send in
    // ipc/msg.c.
    wait_until("it waits", || {
        Verdicts::with(&AT_ONCE);
        waits_in_this_process()
    });
    in_dead_process(|| send(handle));
    let id = told.recv().unwrap();
    assert_eq!(queue.status().unwrap().last_receiver, Some(id));
    assert_ne!(id, sysv_ipc::Pid::current());
    let running = ["foreign", IN_USE, "kept"];
    assert_eq!(judged().on(*queue), running);
    drop(end);
    thread.join().unwrap();
}

fn waits_in_this_process() -> bool {
    fs::read_dir("/proc/self/task").unwrap().flatten().any(|thread| {
        fs::read_to_string(thread.path().join("wchan")).is_ok_and(|at| at.contains("do_msgrcv"))
    })
}

#[as_root_in_own_namespace]
fn queue_with_a_waiting_process_is_kept() {
    let to_receive = used_by_the_dead(foreign());
    let to_send = foreign();
    change(*to_send, |to| to.max_bytes = 4).unwrap();
    in_dead_process(|| {
        send(*to_send);
        receive(*to_send);
        send(*to_send);
    });
    let (receiving, sending) = (*to_receive, *to_send);
    let never = Select::Type(MessageType::new(99).unwrap());
    let receiver =
        thread::spawn(move || receiving.receive(&mut MessageBuffer::with_capacity(8), never));
    let sender = thread::spawn(move || sending.send(&MessageBuffer::with_text(MESSAGE, b"x")));
    let waited_on = ["foreign", "not made by mqfs, and a process may wait on it", "kept"];
    wait_until("both wait", || {
        let verdicts = Verdicts::with(&AT_ONCE);
        [receiving, sending].iter().all(|&queue| verdicts.on(queue) == waited_on)
    });

    let verdicts = judged();

    assert_eq!(verdicts.on(receiving), waited_on);
    assert_eq!(verdicts.on(sending), waited_on);
    drop((to_receive, to_send));
    assert_eq!(receiver.join().unwrap(), Err(ReceiveError::Gone));
    assert!(sender.join().unwrap().is_err());
}

#[as_root_in_own_namespace]
fn queue_used_from_outside_the_reapers_pid_namespace_is_kept() {
    let by_the_living = foreign();
    send_and_receive(*by_the_living);
    let by_the_dead = used_by_the_dead(foreign());
    judged();
    for options in [&["--pid", "--mount-proc"][..], &["--pid"]] {
        let mut reaper = with(program("mqfs-reap"), &["--json"]);
        let inside = Verdicts::of(&mut unshared(options, reaper.args(&AT_ONCE[1..])));
        for queue in [*by_the_living, *by_the_dead] {
            let unknown = ["foreign", UNKNOWN, "kept"];
            assert_eq!(inside.on(queue), unknown, "{options:?}");
        }
    }
}

#[as_root_in_own_pid_namespace]
fn deaths_within_the_reapers_own_pid_namespace_are_proven() {
    let by_the_dead = used_by_the_dead(foreign());
    let by_the_living = foreign();
    send_and_receive(*by_the_living);
    let verdicts = judged();
    assert_eq!(verdicts.on(*by_the_dead), ["orphan", GONE, "would remove"]);
    let running = ["foreign", IN_USE, "kept"];
    assert_eq!(verdicts.on(*by_the_living), running);
}

#[as_root_in_own_namespace]
fn queue_used_in_a_child_pid_namespace_is_kept_while_its_user_lives() {
    let queue = foreign();
    let handle = *queue;
    let outer = fork_child(|| {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let inner = fork_child(|| {
            send_and_receive(handle);
            thread::sleep(crate::support::DEADLINE);
            exit_now(0)
        });
        let _ = waitpid(inner.unwrap(), None);
        exit_now(0)
    });
    let outer = outer.unwrap();
    wait_until("it is used", || queue.status().unwrap().last_receiver.is_some());
    let living = judged();
    let inner = children_of(outer.as_raw())[0];
    let recorded = queue.status().unwrap().last_receiver;
    kill(Pid::from_raw(inner), Signal::SIGKILL).unwrap();
    waitpid(outer, None).unwrap();
    assert_eq!(recorded, Some(sysv_ipc::Pid::from_raw(inner)), "its number out here");
    let running = ["foreign", IN_USE, "kept"];
    assert_eq!(living.on(handle), running);
    assert_eq!(judged().on(handle), ["orphan", GONE, "would remove"]);
}

#[as_root_in_own_namespace]
fn queue_used_or_replaced_since_the_verdict_is_kept() {
    let policy = Policy::new().older_than(Duration::ZERO).foreign(true);
    let find = |queue: Queue| {
        let found = policy.survey().unwrap();
        let finding = found.into_iter().find(|finding| finding.queue == queue).unwrap();
        assert!(finding.verdict.is_orphan(), "{}", finding.verdict);
        finding
    };
    let used_again = used_by_the_dead(foreign());
    let finding = find(*used_again);
    receive(*used_again);
    assert_eq!(remove(&finding), Action::Changed);
    // By dead processes, within the same second.
    let used_by_others = used_by_the_dead(foreign());
    let finding = find(*used_by_others);
    let used_by_others = used_by_the_dead(used_by_others);
    assert_eq!(remove(&finding), Action::Changed);
    assert!(exists(*used_again) && exists(*used_by_others));

    let gone = used_by_the_dead(foreign());
    let finding = find(*gone);
    drop(gone);
    assert_eq!(remove(&finding), Action::Changed);
    let orphan = leased(dead_owner());
    let lost = find(*orphan);
    drop(orphan);
    let successors: [(_, fn() -> OwnedQueue); 3] = [
        (&finding, || {
            let other = foreign();
            send_and_receive(*other);
            other
        }),
        (&finding, || used_by_the_dead(foreign())),
        (&lost, || leased(owner_of(getpid().as_raw()))),
    ];
    for (finding, successor) in successors {
        let_next_queue_have(finding.queue.id());
        let other = successor();
        assert_eq!(other.id(), finding.queue.id());
        assert_eq!(remove(finding), Action::Changed);
        assert!(exists(*other));
    }
}
