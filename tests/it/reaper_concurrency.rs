//! `mqfs-reap` among very many queues, and beside another reaper.

use std::collections::BTreeSet;

use mqfs::wire::OwnerId;
use nix::unistd::getpid;
use sysv_ipc::{OwnedQueue, QueueId, QueueLimits};

use crate::reaper_foreign::foreign;
use crate::support::{
    Running, Verdicts, all_queues, as_root_in_own_namespace, dead_owner, lease_of_owner, leased,
    marked_with, owner_of, program, sleeper,
};

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
