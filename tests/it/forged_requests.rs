//! What other users try with a victim's reply queue during its transfer, without its cookie, and
//! with the cookie: users whom the client trusts as a server (`--server-uid`), and users who may
//! read another program's queue. And what callers do with their own queues meanwhile.

use std::collections::VecDeque;
use std::fs;
use std::thread;
use std::time::Duration;

use mqfs::ownership::lease;
use mqfs::wire::{
    Cookie, Extension, LEASE_TYPE, Lease, NORMAL_PRIORITY, Operation, Question, REPLY_QUEUE_MODE,
    Request,
};
use nix::errno::Errno;
use sysv_ipc::{Key, Lock, MessageBuffer, Mode, OwnedQueue, Queue, QueueSettings, Select};

use crate::support::session::fill;
use crate::support::*;

const WRONG_COOKIE: &str = "the cookie is not that of the reply queue's lease";
const PLAIN: &str = "a plain request, and --plain does not take it";
const PLAIN_FOR_LEASED: &str = "a plain request that names an extended client's queue";

/// Requests without the right cookie, even if only one bit of it is wrong.
fn guesses(queue: Queue) -> Vec<MessageBuffer> {
    let mut almost = *lease_of(queue).cookie.as_bytes();
    almost[15] ^= 1;
    let guess = |cookie| request(queue, "/file", Cookie::new(cookie));
    let mut all = Vec::from([[0; 16], [0xff; 16], almost].map(guess));
    // A request with bytes behind its end, and one with an unknown operation.
    let long = [guess([0; 16]).text(), &[0; 48]].concat();
    all.push(MessageBuffer::with_text(NORMAL_PRIORITY, &long));
    let question = Question::new("/file".as_ref(), Operation::Unknown { operation: 7, flags: 1 });
    let extension = extension(Cookie::new([0; 16]));
    let extension = Some(Extension { session: true, unknown_version: Some(2), ..extension });
    let unknown = Request { reply_queue: queue.id(), question, extension };
    all.push(MessageBuffer::with_text(NORMAL_PRIORITY, &unknown.encode()));
    all
}

/// The attacker sends all requests; waits until the server has taken the last.
#[track_caller]
fn ask_as_attacker(site: &Site, all: &[MessageBuffer]) {
    let requests = site.requests();
    let asked = as_user(ATTACKER, || all.iter().try_for_each(|one| sent(requests.send(one))));
    assert_eq!(asked, Ok(()));
    // The server takes requests in order.
    assert!(run(site.client(0).arg("/file")).success() == site.file);
}

/// The same, and the log must count as many refusals.
#[track_caller]
fn are_refused(site: &Site, reason: &str, all: &[MessageBuffer]) {
    let count = refusals(&site.server, reason) + all.len() as u64;
    ask_as_attacker(site, all);
    let requests = site.requests();
    // Each reason is logged once a second, with the next request that is refused for it.
    wait_until("the log counts the refusals", || {
        requests.send(&all[0]).unwrap();
        refusals(&site.server, reason) >= count
    });
}

/// Fails the test if an attack disturbs two requests of the victim: one that waits to be sent, and
/// one under way. The attack gets the queues of both.
fn during_requests(site: Site, handed_to: u32, attack: impl Fn(&Site, [Queue; 2])) {
    let idle = Idle::new(site.requests(), VICTIM, handed_to);
    let victim = Stuck::start(&mut site.victim());
    attack(&site, [idle.queue, victim.queue]);
    idle.assert_untouched();
    site.finish_intact(victim);
    site.stop();
}

#[as_root_in_own_namespace]
fn guessing_cookies_gets_nothing_into_another_users_transfer() {
    for operator in [0, OPERATOR] {
        during_requests(Site::start_as(operator, &[]), operator, |site, queues| {
            for queue in queues {
                ask_as_attacker(site, &guesses(queue));
            }
            are_refused(site, WRONG_COOKIE, &guesses(queues[1]));
        });
    }
}

/// Fails the test if this user can do anything with a queue, except what [`write`] says.
#[track_caller]
fn assert_closed(queue: Queue, uid: u32) {
    let room = || MessageBuffer::with_capacity(65_536);
    for which in [Select::Any, Select::Type(LEASE_TYPE), Select::Except(LEASE_TYPE)] {
        let receive = || received(queue.try_receive(&mut room(), which));
        assert_eq!(as_user(uid, receive), Err(Errno::EACCES), "{which:?}");
    }
    for index in 0..3 {
        assert_eq!(as_user(uid, || received(queue.peek(&mut room(), index))), Err(Errno::EACCES));
    }
    assert_eq!(as_user(uid, || stat(queue)), Err(Errno::EACCES));
    let (owner, gid) = (sysv_ipc::Uid::from_raw(uid), sysv_ipc::Gid::from_raw(uid));
    for (mode, max_bytes) in [(0o777, 16_384), (0o711, 1), (0, 0)] {
        let settings = QueueSettings { uid: owner, gid, mode: Mode::new(mode), max_bytes };
        assert_eq!(as_user(uid, || set(queue, &settings)), Err(Errno::EPERM));
    }
    assert_eq!(as_user(uid, || queue.remove().map_err(errno_of)), Err(Errno::EPERM));
    let status = || queue.status().map(drop).map_err(errno_of);
    assert_eq!(as_user(uid, status), Ok(()), "what MSG_STAT_ANY says is for everybody");
}

fn write(queue: Queue, uid: u32) -> Result<(), Errno> {
    let message = MessageBuffer::with_text(NORMAL_PRIORITY, b"");
    as_user(uid, || sent(queue.try_send(&message)))
}

fn assert_lock_is_closed(site: &Site, uid: u32) {
    let lock = Lock::open(site.server.key).unwrap();
    let take = || lock.try_acquire().map(drop).map_err(errno_of);
    assert_eq!(as_user(uid, take), Err(Errno::EACCES));
    assert_eq!(as_user(uid, || lock.remove().map_err(errno_of)), Err(Errno::EPERM));
}

#[as_root_in_own_namespace]
fn a_third_user_cannot_touch_a_transfer_between_two_others() {
    for operator in [0, OPERATOR] {
        during_requests(Site::start_as(operator, &[]), operator, |site, queues| {
            let status = queues[1].status().unwrap();
            let owner = if operator == 0 { VICTIM } else { operator };
            let (permissions, settings) = (&status.permissions, status.settings());
            assert_eq!([permissions.cuid, permissions.uid].map(|u| u.as_raw()), [VICTIM, owner]);
            assert_eq!(permissions.mode, REPLY_QUEUE_MODE);
            for uid in [VICTIM, owner] {
                assert_eq!(as_user(uid, || stat(queues[1])), Ok(()), "both ends may read");
            }

            for queue in queues {
                assert_closed(queue, ATTACKER);
                assert_eq!(write(queue, ATTACKER), Err(Errno::EACCES));
            }
            assert_lock_is_closed(site, ATTACKER);
            for uid in [ATTACKER, VICTIM] {
                assert_closed(site.requests(), uid);
                assert_eq!(write(site.requests(), uid), Ok(()), "everybody may ask");
            }
            assert_eq!(queues[1].status().unwrap().settings(), settings);
        });
    }
}

#[as_root_in_own_namespace]
fn a_replayed_request_does_not_reach_a_later_queue_with_the_same_id() {
    for operator in [0, OPERATOR] {
        let site = Site::start_as(operator, &[]);
        let own = Idle::new(site.requests(), ATTACKER, operator);
        let id = own.queue.id();
        let valid = || request(own.queue, "/file", own.lease.cookie);
        ask_as_attacker(&site, &[valid()]);
        wait_until("it is in order", || own.queue.status().unwrap().messages > 1);
        own.queue.remove().unwrap();
        site.server.wait_until_idle();

        let_next_queue_have(id);
        let victim = Stuck::start(&mut site.victim());
        assert_eq!(victim.queue.id(), id);
        are_refused(&site, WRONG_COOKIE, &[valid(), valid(), valid()]);
        site.finish_intact(victim);

        let_next_queue_have(id);
        let idle = Idle::new(site.requests(), VICTIM, operator);
        assert_eq!(idle.queue.id(), id);
        are_refused(&site, WRONG_COOKIE, &[valid(), valid(), valid()]);
        idle.assert_untouched();
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn a_plain_request_gets_nothing_into_another_users_transfer() {
    for (policy, reason) in [("any", PLAIN_FOR_LEASED), ("owner", PLAIN), ("never", PLAIN)] {
        during_requests(Site::start(&["--plain", policy]), VICTIM, |site, queues| {
            let paths = ["/file", "/missing", "/", ""];
            let name = |queue| paths.map(|path| plain_request(queue, path));
            let all: Vec<_> = queues.into_iter().flat_map(name).collect();
            are_refused(site, reason, &all);
        });
    }
}

/// A queue under a key of its own, and the request that a client sent to it.
struct Rogue {
    own: OwnedQueue,
    message: MessageBuffer,
}

impl Rogue {
    fn listen(key: Key) -> Result<Self, Errno> {
        let own = OwnedQueue::create(key, Mode::new(0o733)).map_err(errno_of)?;
        Ok(Self { own, message: MessageBuffer::with_capacity(65_536) })
    }

    /// Reads from the client's queue until the secret is there.
    fn read_secret(&mut self, reply: Queue) -> Result<(), Errno> {
        while self.message.text() != b"secret" {
            received(reply.receive(&mut self.message, Select::Except(LEASE_TYPE)))?;
        }
        Ok(())
    }
}

/// Waits for a request, and changes its path. Also returns the client's queue.
fn rewrite(
    from: Queue,
    message: &mut MessageBuffer,
    path: &str,
) -> Result<(Queue, MessageBuffer), Errno> {
    received(from.receive(message, Select::Any))?;
    let asked = Request::decode(message.text()).map_err(|_| Errno::EBADMSG)?;
    let cookie = asked.extension.ok_or(Errno::EBADMSG)?.cookie;
    let reply = Queue::from_id(asked.reply_queue);
    Ok((reply, request(reply, path, cookie)))
}

/// Lets a client, which may be root, ask the malicious server for another file than its secret.
fn ask_rogue(
    rogue: fn(&mut Rogue, Queue) -> Result<(), Errno>,
    check: fn(&Site, &mut Attack, Running),
) {
    for client in [VICTIM, 0] {
        let site = Site::start(&[]);
        site.put("secret", 0o600, (client, client), "secret");
        let (key, requests) = (unique_key(), site.requests());
        let mut attack = Attack::start(ATTACKER, || rogue(&mut Rogue::listen(key)?, requests));
        wait_until("the rogue listens", || queue_of(key).is_some());
        let arguments = ["--server-uid", &ATTACKER.to_string(), "--timeout", "2s", "/anything"];
        let asking = Running::piped(site.programs.client(key, client).args(arguments));
        check(&site, &mut attack, asking);
        drop(attack);
        clear(key);
        site.stop();
    }
}

#[as_root_in_own_namespace]
fn a_trusted_server_cannot_use_a_clients_queue_to_ask_roots_server() {
    let pass_on = |rogue: &mut Rogue, requests: Queue| {
        let (reply, request) = rewrite(*rogue.own, &mut rogue.message, "/secret")?;
        sent(requests.send(&request))?;
        rogue.read_secret(reply)
    };
    ask_rogue(pass_on, |site, attack, asking| {
        wait_until("root's server has decided", || {
            site.server.log().contains("refused") || !attack.goes_on()
        });
        assert!(attack.goes_on(), "the rogue has read the client's secret");
        assert!(!site.server.log().contains("outcome="), "{}", site.server.log());
        drop(asking);
    });
}

/// A client may publish what it gets from that server, so it must not get its own secret file.
#[as_root_in_own_namespace]
fn a_server_cannot_make_a_client_take_its_own_files_for_the_servers() {
    let give_back = |rogue: &mut Rogue, requests: Queue| {
        let (reply, request) = rewrite(*rogue.own, &mut rogue.message, "/secret")?;
        give(reply, reply.status().map_err(errno_of)?.permissions.cuid.as_raw())?;
        sent(requests.send(&request))
    };
    ask_rogue(give_back, |_, _, asking| {
        let finished = asking.finish();
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "", "{}", finished.stderr);
        assert_eq!(finished.code(), Some(1));
    });
}

/// A queue of root's that everybody may read belongs to another program. A user who reads the
/// cookie there could make root's server send the client another file than it asked for.
#[as_root_in_own_namespace]
fn reading_a_request_does_not_let_others_forge_its_replies() {
    let site = Site::start(&[]);
    site.put("planted", 0o644, (ATTACKER, ATTACKER), "planted");
    let (key, requests) = (unique_key(), site.requests());
    for mode in [0o666, 0o622 | 0o040, 0o622 | 0o004] {
        let theirs = OwnedQueue::create(key, Mode::new(mode)).unwrap();
        let queue = *theirs;
        let open_to_all = mode & 0o004 != 0;
        let attack = Attack::start(if open_to_all { ATTACKER } else { 0 }, || {
            let mut message = MessageBuffer::with_capacity(65_536);
            let (_, request) = rewrite(queue, &mut message, "/planted")?;
            sent(requests.send(&request))
        });
        let finished =
            run(site.programs.client(key, VICTIM).args(["--timeout", "500ms", "/report"]));
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "", "mode {mode:o}");
        assert_eq!(finished.code(), Some(1), "{}", finished.stderr);
        assert_eq!(attack.finish(), Ok(()), "it could read the request");
        wait_until("root's server has refused", || {
            site.server.log().contains("the reply queue's lease is for another server")
        });
    }
    assert!(!site.server.log().contains("outcome="), "{}", site.server.log());
    site.stop();
}

fn put(queue: Queue, lease: &Lease) {
    let _ = queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease.encode()));
}

fn take(queue: Queue) {
    let mut message = MessageBuffer::with_capacity(65_536);
    let _ = queue.try_receive(&mut message, Select::Any);
}

fn change(queue: Queue, change: impl FnOnce(&mut QueueSettings)) {
    let _ = mqfs_kit::change(queue, change);
}

/// What an owner may do with its queue at any time. A call fails if the queue is gone.
const TRICKS: [fn(Queue, &Lease); 14] = [
    |queue, _| _ = queue.remove(),
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
    |queue, _| _ = give(queue, VICTIM),
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
            let _ = give(*own, operator);
        }
        let (trick, variant) = (TRICKS[round % TRICKS.len()], round / TRICKS.len());
        let path = ["/big", "/big", "/missing", "/"][variant % 4];
        if variant % 3 == 0 {
            trick(*own, &lease);
        }
        for _ in 0..=variant % 2 {
            ask_in_turn(requests, &request(*own, path, lease.cookie))?;
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
fn ask_in_turn(requests: Queue, message: &MessageBuffer) -> Result<(), Errno> {
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
