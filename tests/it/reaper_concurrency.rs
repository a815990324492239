//! `mqfs-reap` among very many queues, beside processes that make and remove queues, and beside
//! another reaper.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mqfs::wire::OwnerId;
use nix::sys::signal::kill;
use nix::unistd::getpid;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Queue, QueueId, QueueLimits, Select};

use crate::support::{
    Running, Verdicts, all_queues, as_root_in_own_namespace, dead_owner, exists, in_dead_process,
    lease_of_owner, leased, marked_with, owner_of, program, reap, sleeper, wait_until,
};

const MESSAGE: MessageType = MessageType::new(1).unwrap();

fn foreign() -> OwnedQueue {
    OwnedQueue::private(Mode::new(0o600)).unwrap()
}

fn use_it(queue: Queue) {
    queue.try_send(&MessageBuffer::with_text(MESSAGE, b"")).unwrap();
    queue.try_receive(&mut MessageBuffer::with_capacity(8), Select::Any).unwrap();
}

#[as_root_in_own_namespace]
fn queues_that_come_and_go_are_no_error_and_only_orphans_are_removed() {
    let stop = Arc::new(AtomicBool::new(false));
    let churn = |kind: usize| {
        let stop = Arc::clone(&stop);
        let (alive, dead) = (owner_of(getpid().as_raw()), dead_owner());
        thread::spawn(move || {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                rounds += 1;
                if kind == 0 {
                    // Its owner or a reaper removes it, whichever is first.
                    drop((0..8).map(|_| leased(dead)).collect::<Vec<_>>());
                    continue;
                }
                let queues: Vec<_> =
                    (0..8).map(|n| if n % 2 == 0 { leased(alive) } else { foreign() }).collect();
                queues.iter().skip(1).step_by(2).for_each(|queue| use_it(**queue));
                for queue in queues {
                    // It stays until its owner ends.
                    queue.release().remove().unwrap();
                }
            }
            rounds
        })
    };
    let churning = [churn(0), churn(1)];
    let (mut passes, mut removed) = (0, 0);
    wait_until("reapers and owners meet", || {
        let mut command = program("mqfs-reap");
        let arguments = ["--json", "--foreign", "--older-than", "1ms"];
        Verdicts::of(command.args(arguments));
        removed += Verdicts::now().removed().len();
        passes += 1;
        passes >= 40 && removed > 0
    });
    stop.store(true, Ordering::Relaxed);
    for thread in churning {
        assert!(thread.join().unwrap() > 0);
    }
}

#[as_root_in_own_namespace]
fn two_reapers_at_once_remove_each_orphan_once() {
    let (dead, alive) = (dead_owner(), owner_of(getpid().as_raw()));
    for _ in 0..5 {
        let mut orphans: Vec<_> = (0..400).map(|_| leased(dead).release().id()).collect();
        orphans.sort_unstable();
        let living: Vec<_> = (0..10).map(|_| leased(alive)).collect();
        let start = || {
            let mut command = program("mqfs-reap");
            command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
            Running::start(&mut command)
        };
        let reapers = [start(), start()];
        let mut removed = Vec::new();
        for reaper in reapers {
            let finished = reaper.finish();
            assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
            let text = String::from_utf8(finished.stdout).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let verdicts = Verdicts(rows);
            for queue in &living {
                assert_eq!(verdicts.on(**queue), ["alive", "owner is running", "kept"]);
            }
            for row in verdicts.0.iter().filter(|row| row["verdict"] == "orphan") {
                let action = row["action"].as_str().unwrap();
                assert!(["removed", "gone by itself"].contains(&action), "{row}");
            }
            removed.extend(verdicts.removed());
        }
        removed.sort_unstable();
        assert!(removed == orphans, "each of them once");
        assert_eq!(all_queues().len(), living.len());
    }
}

/// The queues of a full namespace, by what must happen to them.
struct Crowd {
    _processes: Vec<Running>,
    kept: Vec<OwnedQueue>,
    orphans: BTreeSet<QueueId>,
    strangers: Vec<Queue>,
}

/// As many queues as possible: of living owners, dead owners, reused pids, other programs, and some
/// whose owner is uncertain.
fn crowd() -> Crowd {
    let processes: Vec<_> = (0..50).map(|_| sleeper()).collect();
    let owners: Vec<_> = processes.iter().map(|process| owner_of(process.pid())).collect();
    let dead = dead_owner();
    let me = owner_of(getpid().as_raw());
    let mut unknown = lease_of_owner(dead).encode();
    unknown[8] = 99;
    let (mut kept, mut orphans, mut strangers) = (vec![], BTreeSet::new(), vec![]);
    for n in 0..QueueLimits::current().unwrap().msgmni {
        let turn = n / 6;
        match n % 6 {
            0 => kept.push(leased(owners[turn % owners.len()])),
            1 => drop(orphans.insert(leased(dead).release().id())),
            2 => {
                let reborn = OwnerId { start_time: me.start_time + 1 + turn as u64, ..me };
                orphans.insert(leased(reborn).release().id());
            }
            3 if turn % 2 == 0 => kept.push(marked_with(&unknown)),
            3 => kept.push(leased(OwnerId { pid_namespace: 0, ..me })),
            4 => kept.push(foreign()),
            _ => strangers.push(foreign().release()),
        }
    }
    Crowd { _processes: processes, kept, orphans, strangers }
}

#[as_root_in_own_namespace]
fn in_a_full_namespace_only_orphans_are_removed() {
    let Crowd { _processes, kept, orphans, mut strangers } = crowd();
    let all = kept.len() + orphans.len() + strangers.len();
    assert!(all >= 32_000, "{all}");

    let verdicts = Verdicts::now();

    assert_eq!(verdicts.0.len(), all);
    assert!(verdicts.removed().into_iter().collect::<BTreeSet<_>>() == orphans);
    // Those of other programs are removed once they are old enough.
    let use_all = |queues: &[Queue]| in_dead_process(|| queues.iter().for_each(|q| use_it(*q)));
    let mut user = use_all(&strangers);
    let start = Instant::now();
    while !strangers.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(300), "{} are left", strangers.len());
        if kill(user, None).is_ok() {
            // Another process has its pid, so its death is uncertain.
            user = use_all(&strangers);
        }
        reap(&["--foreign", "--older-than", "1ms"]).success();
        strangers.retain(|&queue| exists(queue));
    }
    let left: BTreeSet<_> = all_queues().iter().map(|(queue, _)| queue.id()).collect();
    assert!(left == kept.iter().map(|queue| queue.id()).collect());
}
