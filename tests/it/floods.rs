//! A user floods the request queue while another one fetches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mqfs::wire::{LEASE_TYPE, REPLY_QUEUE_MODE};
use sysv_ipc::{MessageBuffer, MessageType, OwnedQueue, QueueLimits};

use crate::support::{
    ATTACKER, Attack, ForEverybody, Server, VICTIM, as_root_in_own_namespace, leased_request,
    noise, number, queue_of, run, sent, serve_file, wait_until,
};

/// Fetches as the victim during the flood, and once more. Returns how often.
fn fetch_during(flooder: &mut Attack, server: &Server, file: &[u8]) -> usize {
    let programs = ForEverybody::new();
    for fetched in 1.. {
        let over = !flooder.goes_on();
        assert!(run(programs.client(server.key, VICTIM).arg("/file")).success() == file);
        if over {
            return fetched;
        }
    }
    unreachable!()
}

/// The largest number of children that answer the flooder at once, until it is over.
fn most_children(server: &Server, over: &AtomicBool) -> usize {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        let children = server.children().into_iter();
        let uids = children.filter_map(|child| number(child, "status", "Uid"));
        most = most.max(uids.filter(|&uid| uid == u64::from(ATTACKER)).count());
    }
    most
}

#[test]
fn a_hundred_thousand_garbage_messages_harm_nobody() {
    const MESSAGES: usize = 100_000;
    as_root_in_own_namespace(|| {
        let (server, _folder, file) = serve_file(4 << 20, &["--mode", "0622"]);
        let requests = queue_of(server.key).unwrap();
        let mut flooder = Attack::start(ATTACKER, || {
            let msgmax = QueueLimits::current().unwrap().msgmax;
            let garbage = noise(msgmax + MESSAGES);
            let types = [1, 2, 3, 4, 10, LEASE_TYPE.get(), i64::MAX - 1, i64::MAX];
            for n in 0..MESSAGES {
                let mtype = types.get(n % 16).copied().unwrap_or((n as i64) << (n % 40) | 1);
                let text = &garbage[n..][..n % (msgmax + 1)];
                let mtype = MessageType::new(mtype).unwrap();
                sent(requests.send(&MessageBuffer::with_text(mtype, text)))?;
            }
            Ok(())
        });
        let fetched = fetch_during(&mut flooder, &server, &file);
        assert_eq!(flooder.finish(), Ok(()));
        assert!(fetched > 1, "nobody fetched during the flood");
        wait_until("the queue is empty", || requests.status().unwrap().messages == 0);
        assert!(server.log().contains("malformed"), "{}", server.log());
        assert!(server.log().lines().count() < 1000, "the flood is told of in a few lines");
        server.stop();
    });
}

#[test]
fn ten_thousand_requests_of_one_user_do_not_starve_another() {
    const REQUESTS: usize = 10_000;
    as_root_in_own_namespace(|| {
        let (server, _folder, file) = serve_file(4 << 20, &["--mode", "0622"]);
        let requests = queue_of(server.key).unwrap();
        let mut flooder = Attack::start(ATTACKER, || {
            let ask = |path| {
                let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
                let request = leased_request(*queue, requests, path);
                (queue, request)
            };
            let mut askers: Vec<_> = (0..32).map(|_| ask("/file")).collect();
            for n in 0..REQUESTS {
                let turn = n % askers.len();
                // Eight of them are valid, but nobody reads their replies, so they occupy their
                // children.
                if turn >= 8 {
                    askers[turn] = ask("/small");
                }
                sent(requests.send(&askers[turn].1))?;
            }
            Ok(())
        });
        let over = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            let most = scope.spawn(|| most_children(&server, &over));
            fetch_during(&mut flooder, &server, &file);
            over.store(true, Ordering::Relaxed);
            most.join().unwrap()
        });
        assert!(most <= 16, "{most} children of the flooder");
        assert!(server.log().contains("as many children as one may have"));
        assert_eq!(flooder.finish(), Ok(()));
        server.wait_until_idle();
        server.stop();
    });
}
