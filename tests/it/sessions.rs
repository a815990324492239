//! Sessions: many questions to one child, from a client by hand or from `mqfs-client`. Here: those
//! that end because nobody uses them, or because others need their children.

mod answers;
mod deaths;
mod rights;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::pause;
use sysv_ipc::Queue;
use tempfile::TempDir;

use crate::support::session::{Part, RawSession, fetch, question_message};
use crate::support::{
    ATTACKER, Attack, ForEverybody, SOMEBODY, Server, as_root_in_own_namespace, cpu_of, exists,
    in_own_namespace, queue_of, reply_queues, run, serve_quietly, ticks_per_second, wait_until,
};

/// A server of `/small`, and of `/file`, which is larger than any queue.
fn serve(arguments: &[&str]) -> (Server, TempDir, Queue) {
    let (server, folder, _) = serve_quietly(4 << 20, arguments);
    let requests = queue_of(server.key).unwrap();
    (server, folder, requests)
}

/// Waits until a session that is idle now has been idle for so long that its child removes the
/// queue when it ends.
fn wait_until_long_idle() {
    let start = Instant::now();
    wait_until("four seconds pass", || start.elapsed() >= Duration::from_secs(4));
}

/// Idle sessions of this user. The process that has them ends with its handle.
fn idle_sessions(uid: u32, count: usize, requests: Queue) -> (Attack, Vec<Queue>) {
    let before = reply_queues();
    let user = Attack::start(uid, || {
        let _sessions: Vec<_> = (0..count).map(|_| RawSession::idle(requests)).collect();
        loop {
            pause();
        }
    });
    let mut queues = Vec::new();
    wait_until("they are idle", || {
        queues = reply_queues().into_iter().filter(|queue| !before.contains(queue)).collect();
        let is_idle = |queue: &Queue| {
            queue.status().is_ok_and(|now| now.messages == 1 && now.received_at.is_some())
        };
        queues.len() == count && queues.iter().all(is_idle)
    });
    (user, queues)
}

/// Waits until the clock of the kernel's records, which counts whole seconds, shows a later time.
fn wait_for_the_next_second() {
    let second = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let before = second();
    wait_until("the next second", || second() > before + 1);
}

/// Whether the session has no more answers.
fn has_ended(session: &mut RawSession) -> bool {
    matches!(session.next_part(), Part::Gone | Part::Farewell(1 | 2))
}

#[in_own_namespace]
fn the_session_that_is_idle_for_longest_makes_way() {
    let (server, _folder, requests) = serve(&["--max-children", "64", "--idle-timeout", "1h"]);
    let mut oldest = RawSession::idle(requests);
    let mut used_again = RawSession::idle(requests);
    wait_for_the_next_second();
    used_again.answer_to(&fetch("/small")).unwrap();
    let mut others: Vec<_> = (0..62).map(|_| RawSession::idle(requests)).collect();
    others.push(used_again);
    assert_eq!(server.children().len(), 64);

    assert_eq!(server.fetch("/small"), b"small");
    assert!(has_ended(&mut oldest));
    // On a busy machine, others are asked before the first has ended.
    let mut went = 0;
    for mut session in others {
        let question = question_message(&fetch("/small"));
        let asked = session.queue.try_send(&question).is_ok();
        if !asked || has_ended(&mut session) {
            went += 1;
        }
    }
    assert!(went < 32, "{went} made way for one request");
    server.stop();
}

#[in_own_namespace]
fn sessions_at_work_make_way_and_go_on() {
    let (server, _folder, _) = serve(&["--max-children", "4", "--idle-timeout", "1h"]);
    let is_over = AtomicBool::new(false);
    let work = || {
        let client = mqfs::Client::builder().key(server.key).build();
        let mut answers = 0;
        while !is_over.load(Ordering::Relaxed) {
            let small = client.open("/small").unwrap();
            assert_eq!(io::read_to_string(small).unwrap(), "small");
            answers += 1;
        }
        answers
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        wait_until("all children are taken", || server.children().len() == 4);
        for _ in 0..5 {
            assert_eq!(server.fetch("/small"), b"small", "while all four are at work");
        }
        is_over.store(true, Ordering::Relaxed);
        for worker in workers {
            assert!(worker.join().unwrap() > 0);
        }
    });
    server.stop();
}

#[as_root_in_own_namespace]
fn at_a_users_limit_only_that_users_sessions_make_way() {
    let limits = ["--max-per-user", "3", "--idle-timeout", "1h", "--mode", "0622"];
    let (server, _folder, requests) = serve(&limits);
    let (other, others) = idle_sessions(ATTACKER, 3, requests);
    wait_for_the_next_second();
    let (user, own) = idle_sessions(SOMEBODY, 3, requests);
    wait_until_long_idle();
    let programs = ForEverybody::new();
    let fetched = run(programs.client(server.key, SOMEBODY).arg("/small")).success();
    assert_eq!(fetched, b"small");
    assert!(own.iter().any(|queue| !exists(*queue)));
    assert!(others.iter().all(|queue| exists(*queue)));
    drop((user, other));
    wait_until("their children remove the queues", || reply_queues().is_empty());
    assert!(server.log().contains("made way"), "{}", server.log());
    server.stop();
}

#[in_own_namespace]
fn idle_sessions_cost_no_cpu() {
    let (server, _folder, requests) = serve(&["--idle-timeout", "1h"]);
    let _sessions: Vec<_> = (0..8).map(|_| RawSession::idle(requests)).collect();
    let children = server.children();
    let used = || -> f64 { children.iter().map(|&child| cpu_of(child).unwrap()).sum() };
    let (before, start) = (used(), Instant::now());
    wait_until("three seconds pass", || start.elapsed() >= Duration::from_secs(3));
    let ticks = (used() - before) * ticks_per_second();
    assert!(ticks <= 4.0, "{ticks} ticks of 8 idle children in 3 seconds");
    server.stop();
}

#[in_own_namespace]
fn a_session_that_nobody_uses_ends_and_leaves_only_what_nobody_has_read() {
    let (server, _folder, requests) = serve(&["--idle-timeout", "4s"]);
    let mut unread = RawSession::start(requests, &fetch("/small"));
    let mut idle = RawSession::idle(requests);
    assert_eq!(idle.next_part(), Part::Gone);
    server.wait_until_idle();
    assert_eq!(unread.answer().unwrap().bytes, b"small");
    assert_eq!(unread.next_part(), Part::Farewell(1));
    server.stop();
}
