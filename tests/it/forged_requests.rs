//! What other users try with a victim's reply queue during its transfer.

use mqfs::wire::{
    Cookie, Extension, LEASE_TYPE, NORMAL_PRIORITY, Operation, Question, REPLY_QUEUE_MODE, Request,
};
use nix::errno::Errno;
use sysv_ipc::{Lock, MessageBuffer, Mode, Queue, QueueSettings, Select};

use crate::support::{
    ATTACKER, Idle, OPERATOR, Site, VICTIM, as_root_in_own_namespace, as_user, errno_of, lease_of,
    let_next_queue_have, plain_request, received, refusals, request, run, sent, set, stat,
    wait_for_refusals, wait_until,
};

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
    let (cookie, windows, extents) = (Cookie::new([0; 16]), false, false);
    let unknown_version = Some(2);
    let extension = Some(Extension { cookie, session: true, windows, extents, unknown_version });
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
    wait_for_refusals(&site.server, reason, count, || requests.send(&all[0]).unwrap());
}

#[as_root_in_own_namespace]
fn guessing_cookies_gets_nothing_into_another_users_transfer() {
    for operator in [0, OPERATOR] {
        let site = Site::start_as(operator, &[]);
        let idle = Idle::new(site.requests(), VICTIM, operator);
        let victim = site.stuck_victim();
        for queue in [idle.queue, victim.queue] {
            ask_as_attacker(&site, &guesses(queue));
        }
        are_refused(&site, WRONG_COOKIE, &guesses(victim.queue));
        idle.assert_untouched();
        site.finish_intact(victim);
        site.stop();
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

#[track_caller]
fn assert_lock_is_closed(site: &Site, uid: u32) {
    let lock = Lock::open(site.server.key).unwrap();
    let take = || lock.try_acquire().map(drop).map_err(errno_of);
    assert_eq!(as_user(uid, take), Err(Errno::EACCES));
    assert_eq!(as_user(uid, || lock.remove().map_err(errno_of)), Err(Errno::EPERM));
}

#[as_root_in_own_namespace]
fn a_third_user_cannot_touch_a_transfer_between_two_others() {
    for operator in [0, OPERATOR] {
        let site = Site::start_as(operator, &[]);
        let idle = Idle::new(site.requests(), VICTIM, operator);
        let victim = site.stuck_victim();
        let status = victim.queue.status().unwrap();
        let owner = if operator == 0 { VICTIM } else { operator };
        assert_eq!(
            (status.permissions.cuid.as_raw(), status.permissions.uid.as_raw()),
            (VICTIM, owner)
        );
        assert_eq!(status.permissions.mode, REPLY_QUEUE_MODE);
        for uid in [VICTIM, owner] {
            assert_eq!(as_user(uid, || stat(victim.queue)), Ok(()), "both ends may read");
        }

        for queue in [victim.queue, idle.queue] {
            assert_closed(queue, ATTACKER);
            assert_eq!(write(queue, ATTACKER), Err(Errno::EACCES));
        }
        assert_lock_is_closed(&site, ATTACKER);
        for uid in [ATTACKER, VICTIM] {
            assert_closed(site.requests(), uid);
            assert_eq!(write(site.requests(), uid), Ok(()), "everybody may ask");
        }
        assert_eq!(victim.queue.status().unwrap().settings(), status.settings());
        idle.assert_untouched();
        site.finish_intact(victim);
        site.stop();
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
        let victim = site.stuck_victim();
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
        let site = Site::start(&["--plain", policy]);
        let idle = Idle::new(site.requests(), VICTIM, VICTIM);
        let victim = site.stuck_victim();
        let paths = ["/file", "/missing", "/", ""];
        let name = |queue| paths.iter().map(move |path| plain_request(queue, path));
        let all: Vec<_> = name(idle.queue).chain(name(victim.queue)).collect();
        are_refused(&site, reason, &all);
        idle.assert_untouched();
        site.finish_intact(victim);
        site.stop();
    }
}
