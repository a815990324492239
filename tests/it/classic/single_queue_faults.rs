//! One queue for everything: what goes wrong, and what is told of it.

use std::process::Stdio;

use nix::sys::signal::Signal;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue};

use super::single_queue::{REQUEST, answer, assert_report, client, request, server};
use super::{Service, assert_nothing_left, on};
use crate::support::{Running, in_own_namespace, queue_of, run, unique_key, wait_until};

/// The most bytes of a body, with its NUL.
const BODY: usize = 256;

#[test]
fn a_message_may_have_255_bytes_and_a_nul() {
    in_own_namespace(|| {
        let server = server(&[]);
        let longest = "x".repeat(BODY - 1);
        let fits = run(client(server.key).args(["--msg", &longest]));
        assert_eq!(fits.success(), format!("{longest}\n").as_bytes());
        for (message, count) in [("x".repeat(BODY), "1"), (longest, "9")] {
            let refused = run(client(server.key).args(["--msg", &message, "--count", count]));
            assert_eq!((refused.code(), refused.stdout), (Some(2), vec![]));
            let length = message.len() + if count == "9" { 3 } else { 1 };
            let told = format!("--msg: {length} bytes with the NUL are more than 256");
            assert_eq!(refused.stderr, format!("single_queue_client: {told}\n"));
        }
        let report = server.stop();
        assert!(report.contains(" 1 requests in "), "{report}");
    });
}

#[test]
fn requests_that_are_not_in_order_are_refused_with_a_status() {
    in_own_namespace(|| {
        let server = server(&["--verbose"]);
        let queue = queue_of(server.key).unwrap();
        let status = |status: i32, why: &str| [&status.to_ne_bytes()[..], why.as_bytes()].concat();
        queue.send(&request(42, b"no NUL")).unwrap();
        assert_eq!(answer(queue, 42), status(1, "malformed\0"));
        queue.send(&request(42, &[b'x'; 300])).unwrap();
        assert_eq!(answer(queue, 42), status(2, "too long\0"));
        // These cannot be answered: no id, and ids that no client has. Type 1 is that of requests.
        queue.send(&MessageBuffer::with_text(REQUEST, b"abc")).unwrap();
        for id in [1, 0, -7] {
            queue.send(&request(id, b"hello\0")).unwrap();
        }
        let served = run(client(server.key).args(["--id", "42", "--msg", "hello"]));
        assert_eq!(served.success(), b"hello\n");
        let log = server.stop();
        for told in [
            "refused a request: malformed\n",
            "refused a request: too long\n",
            "refused a request: no answer can be sent to id 1\n",
            "refused a request: no answer can be sent to id -7\n",
            ", 6 malformed; 3 answers sent, 0 waited for room, 0 dropped ",
        ] {
            assert!(log.contains(told), "{log}");
        }
    });
}

#[test]
fn a_client_checks_its_answer() {
    in_own_namespace(|| {
        let key = unique_key();
        let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
        for (status, body, told) in [
            (0_i32, &b"hello 2\0"[..], "another's answer: \"hello 2\", not \"hello 1\""),
            (2, b"\x1b[2J\0", "status 2: \"\\u{1b}[2J\""),
            (0, b"no NUL", "a malformed answer"),
        ] {
            let mut client = client(key);
            client.args(["--id", "42", "--msg", "hello", "--count", "2"]);
            let client = Running::start(client.stdout(Stdio::piped()).stderr(Stdio::piped()));
            assert_eq!(answer(*queue, 1), [&42_i32.to_ne_bytes()[..], b"hello 1\0"].concat());
            let answer = [&status.to_ne_bytes()[..], body].concat();
            let mtype = MessageType::new(42).unwrap();
            queue.send(&MessageBuffer::with_text(mtype, &answer)).unwrap();
            let ended = client.finish();
            assert_eq!((ended.code(), &ended.stdout[..]), (Some(1), &b""[..]));
            let told = format!("single_queue_client: {told}\n");
            assert!(ended.stderr.starts_with(&told), "{}", ended.stderr);
        }
    });
}

#[test]
fn ids_that_no_client_has_are_not_taken() {
    for id in ["1", "0", "-7", "2147483648"] {
        let refused = run(client(unique_key()).args(["--msg", "hello", &format!("--id={id}")]));
        assert_eq!(refused.code(), Some(2));
        let told = format!(
            "single_queue_client: invalid value '{id}' for '--id <ID>': {id} is not in \
             2..=2147483647 (see single_queue_client --help)\n"
        );
        assert_eq!(refused.stderr, told);
    }
}

#[test]
fn a_second_server_names_the_first() {
    in_own_namespace(|| {
        let first = server(&[]);
        let second = run(&mut on(first.key, "single_queue_server"));
        assert_eq!((second.code(), second.stdout), (Some(2), vec![]));
        let (key, pid) = (first.key, first.pid());
        let told = format!("key {key} is in use: a server runs there already, pid {pid}");
        assert_eq!(second.stderr, format!("single_queue_server: {told}\n"));
        let served = run(client(key).args(["--msg", "hello"]));
        assert_eq!(served.success(), b"hello\n");
        first.stop();
    });
}

#[test]
fn another_programs_queue_under_the_key_is_left_alone() {
    in_own_namespace(|| {
        let key = unique_key();
        let foreign = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
        let id = foreign.id();
        let refused = || {
            let refused = run(&mut on(key, "single_queue_server"));
            assert_eq!((refused.code(), refused.stdout), (Some(2), vec![]));
            refused.stderr.strip_prefix("single_queue_server: ").unwrap().to_owned()
        };
        let uid = nix::unistd::geteuid();
        let unused = format!("taken: queue {id}, never used, was made by uid {uid}");
        assert_eq!(refused(), format!("key {key} is {unused}; choose another key\n"));
        foreign.send(&MessageBuffer::with_text(REQUEST, b"")).unwrap();
        let pid = nix::unistd::getpid();
        let used = format!("in use: process {pid} uses queue {id}");
        assert_eq!(refused(), format!("key {key} is {used}; choose another key\n"));
        assert_eq!(foreign.status().unwrap().messages, 1);
        drop(foreign);
        assert_nothing_left(key);
    });
}

/// Kills a server that has served once.
fn killed() -> Service {
    let mut server = server(&[]);
    run(client(server.key).args(["--id", "42", "--msg", "hello"])).success();
    server.kill();
    server
}

#[test]
fn a_stale_queue_is_told_with_the_way_out() {
    in_own_namespace(|| {
        let killed = killed();
        let (key, queue) = (killed.key, queue_of(killed.key).unwrap());
        let refused = run(&mut on(key, "single_queue_server"));
        assert_eq!((refused.code(), refused.stdout), (Some(2), vec![]));
        let told = format!(
            "single_queue_server: key {key} is taken: queue {} is stale: who used it is dead, \
             0 messages are left; remove it with ipcrm -Q {key}\n",
            queue.id()
        );
        assert_eq!(refused.stderr, told);
        queue.remove().unwrap(); // as ipcrm does
        let mut next = on(key, "single_queue_server");
        let mut next = Running::start(next.stdout(Stdio::piped()).stderr(Stdio::null()));
        wait_until("it can be asked", || queue_of(key).is_some());
        run(client(key).args(["--msg", "hello"])).success();
        next.signal(Signal::SIGTERM);
        assert_eq!(next.wait().code(), Some(0));
        assert_nothing_left(key);
    });
}

#[test]
fn a_client_without_a_server_fails_at_once() {
    in_own_namespace(|| {
        let key = unique_key();
        let none = run(client(key).args(["--msg", "hello"]));
        assert_eq!((none.code(), none.stdout), (Some(2), vec![]));
        let told = format!("single_queue_client: no server: no queue has key {key}\n");
        assert_eq!(none.stderr, told);

        let killed = killed();
        let dead = run(client(killed.key).args(["--msg", "hello"]));
        assert_eq!(dead.code(), Some(2));
        let told = format!("no server: the one of key {} is dead", killed.key);
        assert_eq!(dead.stderr, format!("single_queue_client: {told}\n"));
    });
}

#[test]
fn a_client_that_is_not_answered_gives_up_and_the_next_with_its_id_is_not_confused() {
    in_own_namespace(|| {
        let server = server(&[]);
        server.freeze();
        for nonblock in [&[][..], &["--nonblock"]] {
            let options = ["--id", "42", "--msg", "first", "--timeout", "200ms"];
            let late = run(client(server.key).args(options).args(nonblock));
            assert_eq!((late.code(), &late.stdout[..]), (Some(1), &b""[..]));
            let told = "single_queue_client: timed out: no answer within 200ms\n";
            assert!(late.stderr.starts_with(told), "{}", late.stderr);
            assert_report(&late, 1, 0);
        }
        server.signal(Signal::SIGCONT);
        let queue = queue_of(server.key).unwrap();
        wait_until("both are answered", || {
            let status = queue.status().unwrap();
            status.messages == 2 && status.last_sender.map(|pid| pid.as_raw()) == Some(server.pid())
        });
        let next = run(client(server.key).args(["-v", "--id", "42", "--msg", "second"]));
        let discards = "discards an answer to somebody before";
        assert_eq!(next.stderr.matches(discards).count(), 2, "{}", next.stderr);
        assert_eq!(next.success(), b"second\n");
        server.stop();
    });
}

#[test]
fn a_server_that_does_not_take_requests_keeps_no_client_waiting_for_ever() {
    in_own_namespace(|| {
        let server = server(&[]);
        server.freeze();
        let queue = queue_of(server.key).unwrap();
        while queue.try_send(&request(42, b"x\0")).is_ok() {}
        for nonblock in [&[][..], &["--nonblock"]] {
            let options = ["--msg", "hello", "--timeout", "200ms"];
            let late = run(client(server.key).args(options).args(nonblock));
            assert_eq!(late.code(), Some(1));
            assert_report(&late, 0, 0);
        }
        server.signal(Signal::SIGCONT);
        server.stop();
    });
}

#[test]
fn what_the_dead_do_not_collect_is_dropped_when_the_queue_is_full() {
    in_own_namespace(|| {
        let server = server(&["--verbose", "--keep", "1h"]);
        let body = "x".repeat(200);
        for _ in 0..4 {
            // Each fits into the queue alone, but not with what the one before left.
            let options = ["--abandon", "--count", "50", "--msg", &body];
            let dead = run(client(server.key).args(options));
            assert_report(&dead, 50, 0);
            assert_eq!(dead.success(), b"");
        }
        for _ in 0..3 {
            let served = run(client(server.key).args(["--msg", "hello"]));
            assert_eq!(served.success(), b"hello\n");
        }
        let log = server.stop();
        assert!(log.contains(": no such process\n"), "{log}");
        assert!(log.contains(" 203 requests in "), "{log}");
    });
}

#[test]
fn what_the_living_do_not_collect_is_dropped_too_after_a_while() {
    in_own_namespace(|| {
        let server = server(&["--verbose", "--keep", "300ms"]);
        let queue = queue_of(server.key).unwrap();
        let me = std::process::id() as i32;
        for n in 0..queue.status().unwrap().max_bytes / 260 {
            let body = format!("{n:0>255}\0");
            queue.send(&request(me, body.as_bytes())).unwrap();
        }
        let served = run(client(server.key).args(["--msg", "hello"]));
        assert_eq!(served.success(), b"hello\n");
        // Until there is room: what is left then disturbs nobody.
        wait_until("they are dropped", || queue.status().unwrap().messages < 32);
        let log = server.stop();
        let dropped = format!("dropped an answer to {me}: not collected\n");
        assert!(log.contains(&dropped), "{log}");
        assert!(log.contains("(0 of them: no such process)"), "{log}");
    });
}

#[test]
fn what_nobody_asked_for_does_not_block_the_queue_for_good() {
    in_own_namespace(|| {
        let server = server(&["--keep", "300ms", "--nonblock"]);
        let queue = queue_of(server.key).unwrap();
        let junk = MessageBuffer::with_text(MessageType::new(77_777_777).unwrap(), &[b'x'; 1000]);
        while queue.try_send(&junk).is_ok() {}
        let served = run(client(server.key).args(["--msg", "hello"]));
        assert_eq!(served.success(), b"hello\n");
        server.stop();
    });
}

#[test]
fn a_server_whose_queue_is_removed_by_others_says_so() {
    in_own_namespace(|| {
        let server = server(&[]);
        queue_of(server.key).unwrap().remove().unwrap();
        let key = server.key;
        let ended = server.finish();
        assert_eq!(ended.code(), Some(1));
        let told = "single_queue_server: somebody else removed the queue\n";
        assert!(ended.stderr.ends_with(told), "{}", ended.stderr);
        assert_nothing_left(key);
    });
}
