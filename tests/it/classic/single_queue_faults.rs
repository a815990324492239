//! One queue for everything: faults.

use std::process::Stdio;

use nix::sys::signal::Signal;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue};

use super::single_queue::{REQUEST, answer, client, request, server};
use super::{Service, assert_nothing_left, on};
use crate::support::{Running, in_own_namespace, queue_of, run, unique_key, wait_until};

#[in_own_namespace]
fn malformed_requests_are_refused_with_a_status() {
    let server = server(&["--verbose"]);
    let queue = queue_of(server.key).unwrap();
    let status = |status: i32, why: &str| [&status.to_ne_bytes()[..], why.as_bytes()].concat();
    queue.send(&request(42, b"no NUL")).unwrap();
    assert_eq!(answer(queue, 42), status(1, "\0"));
    queue.send(&request(42, &[b'x'; 300])).unwrap();
    assert_eq!(answer(queue, 42), status(2, "\0"));
    // These cannot be answered: no id, and ids that no client has. Type 1 is that of requests.
    queue.send(&MessageBuffer::with_text(REQUEST, b"abc")).unwrap();
    for id in [1, 0, -7] {
        queue.send(&request(id, b"hello\0")).unwrap();
    }
    let served = run(client(server.key).args(["--id", "42", "--msg", "hello"]));
    assert_eq!(served.success(), b"hello\n");
    let log = server.stop();
    for id in [1, 0, -7] {
        assert!(log.contains(&format!("no client has id {id}\n")), "{log}");
    }
}

#[in_own_namespace]
fn a_client_checks_its_answer() {
    let key = unique_key();
    let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    for (status, body, told) in [
        (0_i32, &b"hello 2\0"[..], "the answer to another request: \"hello 2\""),
        (2, b"\0", "the request was refused: status 2"),
        (0, b"no NUL", "a malformed answer"),
    ] {
        let mut client = client(key);
        client.args(["--id", "42", "--msg", "hello", "--count", "2"]);
        let client = Running::piped(&mut client);
        assert_eq!(answer(*queue, 1), [&42_i32.to_ne_bytes()[..], b"hello 1\0"].concat());
        let answer = [&status.to_ne_bytes()[..], body].concat();
        let mtype = MessageType::new(42).unwrap();
        queue.send(&MessageBuffer::with_text(mtype, &answer)).unwrap();
        let ended = client.finish();
        assert_eq!((ended.code(), &ended.stdout[..]), (Some(1), &b""[..]));
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}

/// A server that has served once and was killed.
fn killed() -> Service {
    let mut server = server(&[]);
    run(client(server.key).args(["--id", "42", "--msg", "hello"])).success();
    server.kill();
    server
}

#[in_own_namespace]
fn a_killed_servers_queue_is_left_alone_and_ipcrm_makes_way() {
    let killed = killed();
    let (key, queue) = (killed.key, queue_of(killed.key).unwrap());
    let refused = run(&mut on(key, "single_queue_server"));
    assert_eq!((refused.code(), refused.stdout), (Some(1), vec![]));
    assert!(refused.stderr.ends_with(&format!(": ipcrm -Q {key}\n")), "{}", refused.stderr);
    queue.remove().unwrap(); // as ipcrm does
    let mut next = on(key, "single_queue_server");
    let mut next = Running::start(next.stdout(Stdio::piped()).stderr(Stdio::null()));
    wait_until("it is ready", || queue_of(key).is_some());
    run(client(key).args(["--msg", "hello"])).success();
    next.signal(Signal::SIGTERM);
    assert_eq!(next.wait().code(), Some(0));
    assert_nothing_left(key);
}

#[in_own_namespace]
fn a_client_that_is_not_answered_gives_up_and_the_next_with_its_id_is_not_confused() {
    let server = server(&[]);
    server.freeze();
    for nonblock in [&[][..], &["--nonblock"]] {
        let options = ["--id", "42", "--msg", "first", "--timeout", "200ms"];
        let late = run(client(server.key).args(options).args(nonblock));
        assert_eq!((late.code(), &late.stdout[..]), (Some(1), &b""[..]));
        assert!(late.stderr.contains("timed out"), "{}", late.stderr);
    }
    server.signal(Signal::SIGCONT);
    let queue = queue_of(server.key).unwrap();
    wait_until("both are answered", || {
        let status = queue.status().unwrap();
        status.messages == 2 && status.last_sender.map(|pid| pid.as_raw()) == Some(server.pid())
    });
    let next = run(client(server.key).args(["--id", "42", "--msg", "second"]));
    let discards = "discards an old answer";
    assert_eq!(next.stderr.matches(discards).count(), 2, "{}", next.stderr);
    assert_eq!(next.success(), b"second\n");
    server.stop();
}

#[in_own_namespace]
fn foreign_messages_do_not_block_the_queue_for_good() {
    let server = server(&["--keep", "300ms", "--nonblock"]);
    let queue = queue_of(server.key).unwrap();
    let junk = MessageBuffer::with_text(MessageType::new(77_777_777).unwrap(), &[b'x'; 1000]);
    while queue.try_send(&junk).is_ok() {}
    let served = run(client(server.key).args(["--msg", "hello"]));
    assert_eq!(served.success(), b"hello\n");
    server.stop();
}

#[in_own_namespace]
fn a_server_whose_queue_others_remove_fails() {
    let server = server(&[]);
    queue_of(server.key).unwrap().remove().unwrap();
    let key = server.key;
    let ended = server.finish();
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("msgrcv: "), "{}", ended.stderr);
    assert_nothing_left(key);
}
