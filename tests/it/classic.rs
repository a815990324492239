//! The classic designs under `examples/`, as a user runs them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use nix::sys::signal::Signal;
use sysv_ipc::{
    Key, Lock, MessageBuffer, MessageType, Mode, OwnedQueue, Queue, Select, SharedMemory,
};
use tempfile::TempDir;

use crate::support::*;

/// A program that serves under a key of its own, ready for requests.
struct Service {
    key: Key,
    running: Running,
    _clear: ClearAtEnd,
}

impl Service {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let key = unique_key();
        let mut running = Running::piped(on(key, name).args(arguments));
        let line = running.first_line();
        let service = Self { key, running, _clear: ClearAtEnd(key) };
        let queue = queue_of(key).map(|queue| queue.id().to_string()).unwrap_or_default();
        assert_eq!(line, format!("{name}: ready: key {key}, queue {queue}\n"));
        service
    }

    /// Stops it as a service manager would. Fails the test unless it ends well and leaves nothing.
    /// Returns its standard error.
    #[track_caller]
    fn stop(self) -> String {
        self.running.signal(Signal::SIGTERM);
        self.ended()
    }

    /// The same for a program that ends by itself.
    #[track_caller]
    fn ended(self) -> String {
        let key = self.key;
        let finished = self.running.finish();
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        assert_nothing_left(key);
        finished.stderr
    }
}

fn on(key: Key, name: &str) -> Command {
    under(key, program(name))
}

#[track_caller]
fn assert_nothing_left(key: Key) {
    assert_eq!(queue_of(key), None, "a queue is left");
    assert!(Lock::open(key).is_err(), "a semaphore is left");
    assert!(SharedMemory::open(key).is_err(), "shared memory is left");
}

#[in_own_namespace]
fn an_urgent_message_is_received_before_all_that_filled_the_queue() {
    let shown = text(&mut program("priority"));
    assert_eq!(
        shown,
        "two-step receive: type 1 with IPC_NOWAIT, then any\n\
             \x20 sent 16 of type 10, until the queue was full, then 1 of type 1\n\
             \x20 received type 1 first, then 16 of type 10, in 33 calls\n\
             one call: msgtyp -10, the lowest type up to 10\n\
             \x20 sent 16 of type 10, until the queue was full, then 1 of type 1\n\
             \x20 received type 1 first, then 16 of type 10, in 17 calls\n"
    );
}

#[in_own_namespace]
fn the_deadlock_is_shown_and_both_ways_out() {
    let server = server(&["--verbose", "--keep", "300ms"]);
    let shown = text(&mut on(server.key, "deadlock"));
    for part in [
        "   the queue: 63 messages, 16380 of 16384 bytes\n",
        "   64 clients wait in msgrcv, each for its answer\n",
        "   1 client waits in msgsnd, for room\n",
        "   after 1 s: nothing moved, nobody was answered\n",
        "s: 189 requests taken, ",
        "   a client that collects its answer got it after ",
        "   65 clients, of which 33 collect: all answered after ",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let log = server.stop();
    assert!(log.contains(": no such process\n"), "{log}");
}

/// An LED as the kernel shows one, as far as a file can.
fn led() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("max_brightness"), "255\n").unwrap();
    let file = folder.path().join("brightness");
    fs::write(&file, "17\n").unwrap();
    let name = file.to_str().unwrap().to_owned();
    (folder, name)
}

#[track_caller]
fn wait_for(led: &str, brightness: &str) {
    wait_until(&format!("the brightness is {brightness}"), || {
        fs::read_to_string(led).unwrap() == format!("{brightness}\n")
    });
}

#[in_own_namespace]
fn commands_switch_the_led_and_exit_or_a_signal_leaves_it_as_it_was() {
    for signal in [None, Some(Signal::SIGINT), Some(Signal::SIGTERM), Some(Signal::SIGHUP)] {
        let (_folder, led) = led();
        let controller = Service::start("controller", &["--led", &led]);
        let send = |command| run(on(controller.key, "controller").arg(command)).success();
        for (command, brightness) in [("on", "255"), ("off", "0"), ("on", "255")] {
            assert_eq!(send(command), b"");
            wait_for(&led, brightness);
        }
        match signal {
            None => drop(send("exit")),
            Some(signal) => controller.running.signal(signal),
        }
        assert_eq!(controller.ended(), "");
        wait_for(&led, "17");
    }
}

/// Some of what every run shows, whatever the ids and pids.
const SHOWN: [&str; 6] = [
    ": its queue stays, and a client in msgrcv still waits",
    ": msgrcv fails with EIDRM",
    "  the client tries its old id again: EINVAL",
    ": it lives, and holds the lock",
    ": it is dead, nobody holds the lock",
    " is asked to stop, and leaves nothing",
];

#[in_own_namespace]
fn a_client_finds_the_next_server_and_recognises_a_dead_servers_memory() {
    let key = unique_key();
    let shown = text(&mut on(key, "restart"));
    let mut lines = shown.lines();
    for end in SHOWN {
        assert!(lines.any(|line| line.ends_with(end)), "{end:?} is missing in\n{shown}");
    }
    assert_nothing_left(key);
}

#[in_own_namespace]
fn a_signal_ends_it_and_its_servers_and_leaves_nothing() {
    for lines in [1, 3, 9] {
        let key = unique_key();
        let mut running = Running::piped(&mut on(key, "restart"));
        let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
        (0..lines).for_each(|_| _ = stdout.read_line(&mut String::new()).unwrap());
        running.signal(Signal::SIGTERM);
        // Its servers hold the other end too, so this ends when all of them have ended.
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        let was_finished = rest.ends_with("leaves nothing\n"); // before the signal came
        let status = running.finish().code();
        assert!(status == Some(130) || was_finished && status == Some(0), "{status:?}: {rest}");
        assert_nothing_left(key);
    }
}

const REQUEST: MessageType = MessageType::new(1).unwrap();

fn server(arguments: &[&str]) -> Service {
    Service::start("single_queue_server", arguments)
}

fn client(key: Key) -> Command {
    on(key, "single_queue_client")
}

fn request(id: i32, body: &[u8]) -> MessageBuffer {
    let mtext = [&id.to_ne_bytes()[..], body].concat();
    MessageBuffer::with_text(REQUEST, &mtext)
}

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
    let reply_key = unique_key().to_string();
    // One queue, two, and one for each client.
    for options in [&[][..], &["--nonblock"], &["--reply-key", &reply_key], &["--per-client"]] {
        let server = server(&[options, &["--verbose"]].concat());
        let start = |n| {
            let message = ["--msg", &format!("client {n}"), "--count", "1250"];
            Running::piped(client(server.key).args(message).args(options))
        };
        let clients: Vec<_> = (0..8).map(start).collect();
        for client in clients {
            client.finish().success(); // it has checked every answer
        }
        assert_eq!(server.stop(), "", "{options:?}: nothing is dropped");
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
    server.running.freeze();
    let late = run(client(server.key).args(["--id", "42", "--msg", "1", "--timeout", "200ms"]));
    assert_eq!((late.code(), &late.stdout[..]), (Some(1), &b""[..]));
    assert!(late.stderr.contains("timed out"), "{}", late.stderr);
    server.running.signal(Signal::SIGCONT);
    let queue = queue_of(server.key).unwrap();
    wait_until("it is answered", || {
        let last = queue.status().unwrap().last_sender.map(|pid| pid.as_raw());
        last == Some(server.running.pid())
    });
    let next = run(client(server.key).args(["--id", "42", "--msg", "second"]));
    assert!(next.stderr.contains("discards an old answer"), "{}", next.stderr);
    assert_eq!(next.success(), b"second\n");
    server.stop();
}
