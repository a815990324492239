//! Callers that remove, refill and change their queues while the server admits and serves them.

use std::collections::VecDeque;
use std::fs;
use std::thread;
use std::time::Duration;

use mqfs::ownership::lease;
use mqfs::wire::{Cookie, LEASE_TYPE, Lease, REPLY_QUEUE_MODE};
use nix::errno::Errno;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Queue, QueueSettings, Select};

use crate::support::{
    ATTACKER, Attack, OPERATOR, Site, VICTIM, all_queues, as_root_in_own_namespace, errno_of,
    noise, request, run, sent, set,
};

const DATA: MessageType = MessageType::new(2).unwrap();

fn put(queue: Queue, lease: &Lease) {
    let _ = queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease.encode()));
}

fn take(queue: Queue) {
    let mut message = MessageBuffer::with_capacity(65_536);
    let _ = queue.try_receive(&mut message, Select::Any);
}

fn fill(queue: Queue) {
    for size in [4096, 64, 1] {
        let junk = MessageBuffer::with_text(DATA, &vec![b'x'; size]);
        while queue.try_send(&junk).is_ok() {}
    }
}

fn change(queue: Queue, change: impl FnOnce(&mut QueueSettings)) {
    if let Ok(status) = queue.status() {
        let mut settings = status.settings();
        change(&mut settings);
        let _ = set(queue, &settings);
    }
}

/// What an owner may do with its queue at any time. A call fails if the queue is gone.
const TRICKS: [fn(Queue, &Lease); 14] = [
    |queue, _| {
        let _ = queue.remove();
    },
    |queue, _| take(queue),
    |queue, lease| {
        take(queue);
        put(queue, &Lease { cookie: Cookie::new([1; 16]), ..*lease });
    },
    |queue, lease| {
        take(queue);
        fill(queue);
        take(queue);
        put(queue, lease);
    },
    |queue, _| fill(queue),
    |queue, _| change(queue, |to| to.mode = Mode::new(0)),
    |queue, _| change(queue, |to| to.mode = Mode::new(0o777)),
    |queue, _| change(queue, |to| to.max_bytes = 0),
    |queue, _| change(queue, |to| to.max_bytes = 1),
    |queue, _| change(queue, |to| to.max_bytes = 200),
    |queue, _| change(queue, |to| to.uid = sysv_ipc::Uid::from_raw(VICTIM)),
    |queue, _| (0..9).for_each(|_| take(queue)),
    |queue, _| {
        // The next queue gets the same slot in the kernel's table, but not the same id.
        let _ = queue.remove();
        let _ = OwnedQueue::private(REPLY_QUEUE_MODE);
    },
    |_, _| {},
];

/// Sends a request, with a trick before or after it, and keeps a few queues for a while.
fn trick_around(requests: Queue, operator: u32, rounds: usize) -> Result<(), Errno> {
    let mut lease = lease::new(requests.id()).map_err(|_| Errno::EIO)?;
    let mut kept = VecDeque::new();
    for round in 0..rounds {
        let mut cookie = *lease.cookie.as_bytes();
        cookie[..8].copy_from_slice(&round.to_ne_bytes());
        lease.cookie = Cookie::new(cookie);
        let own = OwnedQueue::private(REPLY_QUEUE_MODE).map_err(errno_of)?;
        put(*own, &lease);
        if operator != 0 {
            change(*own, |to| to.uid = sysv_ipc::Uid::from_raw(operator));
        }
        let (trick, variant) = (TRICKS[round % TRICKS.len()], round / TRICKS.len());
        let path = ["/big", "/big", "/missing", "/"][variant % 4];
        if variant % 3 == 0 {
            trick(*own, &lease);
        }
        for _ in 0..=variant % 2 {
            ask(requests, &request(*own, path, lease.cookie))?;
        }
        if variant % 5 > 0 {
            thread::yield_now(); // admitted by now, or not
        }
        trick(*own, &lease);
        kept.push_back(own);
        if kept.len() > 4 {
            kept.pop_front();
        }
    }
    Ok(())
}

/// Leaves room for other requests: a mere flood is tested elsewhere.
fn ask(requests: Queue, message: &MessageBuffer) -> Result<(), Errno> {
    while requests.status().is_ok_and(|status| status.messages > 8) {
        thread::sleep(Duration::from_micros(200));
    }
    sent(requests.send(message))
}

#[as_root_in_own_namespace]
fn callers_that_remove_and_change_their_queues_harm_nobody() {
    for operator in [0, OPERATOR] {
        let site = Site::start_as(operator, &["--stall-timeout", "2s"]);
        let big = noise(4 << 20);
        fs::write(site.at("big"), &big).unwrap();
        let requests = site.requests();
        let attack = |uid| Attack::start(uid, || trick_around(requests, operator, 2000));
        let mut attacks = [attack(ATTACKER), attack(ATTACKER + 10)];
        let mut fetched = 0;
        while fetched < 3 || attacks.iter_mut().any(Attack::goes_on) {
            let victim = run(site.client(VICTIM).arg("/big"));
            assert!(victim.success() == big, "the victim's file is not what it was");
            fetched += 1;
        }
        for attack in attacks {
            assert_eq!(attack.finish(), Ok(()));
        }
        site.server.wait_until_idle();
        let left: Vec<_> =
            all_queues().into_iter().filter(|&(queue, _)| queue != requests).collect();
        assert_eq!(left, [], "queues left");
        site.stop();
    }
}
