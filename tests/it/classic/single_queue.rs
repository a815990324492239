//! One queue for everything: requests and answers.

use std::process::Command;

use nix::sys::signal::Signal;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, Select};

use super::{Service, on};
use crate::support::{Running, in_own_namespace, queue_of, run, unique_key, wait_until};

const REQUEST: MessageType = MessageType::new(1).unwrap();

/// The three designs that the programs implement.
const DESIGNS: [&str; 3] = ["one queue", "two queues", "a queue per client"];

fn arguments(design: &str, reply_key: Key) -> Vec<String> {
    match design {
        "two queues" => vec!["--reply-key".to_owned(), reply_key.to_string()],
        "a queue per client" => vec!["--per-client".to_owned()],
        _ => vec![],
    }
}

pub fn server(arguments: &[&str]) -> Service {
    Service::start("single_queue_server", arguments)
}

fn client(key: Key) -> Command {
    on(key, "single_queue_client")
}

/// A hand-made request.
fn request(id: i32, body: &[u8]) -> MessageBuffer {
    let mtext = [&id.to_ne_bytes()[..], body].concat();
    MessageBuffer::with_text(REQUEST, &mtext)
}

/// Receives the answer to an id.
#[track_caller]
fn answer(queue: Queue, id: i64) -> Vec<u8> {
    let mut message = MessageBuffer::with_capacity(8192);
    let which = Select::Type(MessageType::new(id).unwrap());
    wait_until("there is an answer", || queue.try_receive(&mut message, which).is_ok());
    message.text().to_vec()
}

#[in_own_namespace]
fn a_request_is_the_id_and_the_body_and_a_nul() {
    let key = unique_key();
    let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    for id in [None, Some("42")] {
        let mut command = client(key);
        command.args(id.map(|id| ["--id", id]).iter().flatten()).args(["--msg", "hello"]);
        let client = Running::piped(&mut command);
        let id = id.map_or(client.pid(), |id| id.parse().unwrap());
        let asked = answer(*queue, 1);
        assert_eq!(asked, [&id.to_ne_bytes()[..], b"hello\0"].concat());
        let answer = [&0_i32.to_ne_bytes()[..], b"hello\0"].concat();
        let mtype = MessageType::new(id.into()).unwrap();
        queue.send(&MessageBuffer::with_text(mtype, &answer)).unwrap();
        assert_eq!(client.finish().success(), b"hello\n");
    }
}

#[in_own_namespace]
fn ten_thousand_requests_from_eight_clients_are_answered_without_a_loss() {
    for (design, nonblock) in
        [(DESIGNS[0], false), (DESIGNS[0], true), (DESIGNS[1], false), (DESIGNS[2], false)]
    {
        let mut options = arguments(design, unique_key());
        if nonblock {
            options.push("--nonblock".to_owned());
        }
        let all: Vec<_> = options.iter().map(String::as_str).chain(["--verbose"]).collect();
        let server = server(&all);
        let start = |n| {
            let mut command = client(server.key);
            command.args(["--msg", &format!("client {n}"), "--count", "1250"]).args(&options);
            Running::piped(&mut command)
        };
        let clients: Vec<_> = (0..8).map(start).collect();
        for client in clients {
            client.finish().success(); // it has checked every answer
        }
        assert_eq!(server.stop(), "", "{design}: nothing is dropped");
    }
}

#[in_own_namespace]
fn malformed_requests_are_refused_with_a_status() {
    let server = server(&["--verbose"]);
    let queue = queue_of(server.key).unwrap();
    for (body, status) in [(&b"no NUL"[..], 1_i32), (&[b'x'; 300], 2)] {
        queue.send(&request(42, body)).unwrap();
        assert_eq!(answer(queue, 42), [&status.to_ne_bytes()[..], b"\0"].concat());
    }
    // These cannot be answered: no client has these ids. Type 1 is that of requests.
    for id in [1, 0, -7] {
        queue.send(&request(id, b"hello\0")).unwrap();
    }
    assert_eq!(run(client(server.key).args(["--msg", "hello"])).success(), b"hello\n");
    let log = server.stop();
    for id in [1, 0, -7] {
        assert!(log.contains(&format!("no client has id {id}\n")), "{log}");
    }
}

#[in_own_namespace]
fn the_next_client_with_the_id_of_one_that_gave_up_is_not_confused() {
    let server = server(&[]);
    server.freeze();
    let late = run(client(server.key).args(["--id", "42", "--msg", "1", "--timeout", "200ms"]));
    assert_eq!((late.code(), &late.stdout[..]), (Some(1), &b""[..]));
    assert!(late.stderr.contains("timed out"), "{}", late.stderr);
    server.signal(Signal::SIGCONT);
    let queue = queue_of(server.key).unwrap();
    wait_until("it is answered", || {
        let last = queue.status().unwrap().last_sender.map(|pid| pid.as_raw());
        last == Some(server.pid())
    });
    let next = run(client(server.key).args(["--id", "42", "--msg", "second"]));
    assert!(next.stderr.contains("discards an old answer"), "{}", next.stderr);
    assert_eq!(next.success(), b"second\n");
    server.stop();
}
