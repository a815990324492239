//! `mqfs-reap --foreign`: queues of other software.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mqfs::reaper::{Action, Policy, remove};
use mqfs::sys::exit_now;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Queue, ReceiveError, Select};

use crate::support::{
    SOMEBODY, Verdicts, as_root_in_own_namespace, as_root_in_own_pid_namespace, children_of,
    exists, fork_child, give, in_dead_process, let_next_queue_have, program, unique_key, unshared,
    wait_until,
};

const MESSAGE: MessageType = MessageType::new(1).unwrap();
const GONE: &str = "not made by mqfs, its last sender and receiver are gone";
const IN_USE: &str = "not made by mqfs, its last sender or receiver is running";
const UNKNOWN: &str = "not made by mqfs, its last sender or receiver unknown";
/// After a second every queue is older than this; the kernel counts whole seconds.
const AT_ONCE: [&str; 4] = ["--json", "--foreign", "--older-than", "1ms"];

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
        verdicts = Verdicts::of(program("mqfs-reap").arg("-n").args(AT_ONCE));
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
    let default = Verdicts::of(program("mqfs-reap").args(["--json", "--foreign"]));
    assert_eq!(default.on(*queue), ["recent", &recent, "kept"], "an hour is the default");
    wait_until("it is old enough", || {
        let verdicts =
            Verdicts::of(program("mqfs-reap").args(["--json", "--foreign", "--older-than", "1s"]));
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
    give(*given, SOMEBODY);
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
        Verdicts::of(program("mqfs-reap").arg("-n").args(AT_ONCE));
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

/// Whether a thread of this test waits in msgrcv.
fn waits_in_this_process() -> bool {
    fs::read_dir("/proc/self/task").unwrap().flatten().any(|thread| {
        fs::read_to_string(thread.path().join("wchan")).is_ok_and(|at| at.contains("do_msgrcv"))
    })
}

#[as_root_in_own_namespace]
fn queue_with_a_waiting_process_is_kept() {
    let to_receive = used_by_the_dead(foreign());
    let to_send = foreign();
    let mut settings = to_send.status().unwrap().settings();
    settings.max_bytes = 4;
    to_send.set(&settings).unwrap();
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
        let verdicts = Verdicts::of(program("mqfs-reap").arg("-n").args(AT_ONCE));
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
        let inside = Verdicts::of(&mut unshared(options, program("mqfs-reap").args(AT_ONCE)));
        for queue in [*by_the_living, *by_the_dead] {
            let unknown = ["foreign", UNKNOWN, "kept"];
            assert_eq!(inside.on(queue), unknown, "{options:?}");
        }
    }
}

#[test]
fn deaths_within_the_reapers_own_pid_namespace_are_proven() {
    as_root_in_own_pid_namespace(
        "reaper_foreign::deaths_within_the_reapers_own_pid_namespace_are_proven",
        || {
            let by_the_dead = used_by_the_dead(foreign());
            let by_the_living = foreign();
            send_and_receive(*by_the_living);
            let verdicts = judged();
            assert_eq!(verdicts.on(*by_the_dead), ["orphan", GONE, "would remove"]);
            let running = ["foreign", IN_USE, "kept"];
            assert_eq!(verdicts.on(*by_the_living), running);
        },
    );
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
    for by_the_dead in [false, true] {
        let id = finding.queue.id();
        let_next_queue_have(id);
        let other = foreign();
        assert_eq!(other.id(), id);
        if by_the_dead {
            in_dead_process(|| send_and_receive(*other));
        } else {
            send_and_receive(*other);
        }
        assert_eq!(remove(&finding), Action::Changed);
        assert!(exists(*other));
    }
}
