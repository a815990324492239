use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::unistd::getpid;
use sysv_ipc::{Acquire, Lock, Mode, OwnedQueue, SharedMemory};

use super::{assert_nothing_left, on};
use crate::support::{Running, clear, exists, in_own_namespace, run, unique_key, wait_until};

/// What it shows. A word in capitals is a number, the same wherever it stands.
const SHOWN: &str = "\
the queue
  the client asks queue QUEUE1: server SERVER1 answers
  server SERVER1 is killed: its queue stays, and the client, caught waiting, still waits
  server SERVER2 removes the queue and makes another: msgrcv fails with EIDRM
  the client tries its old id again: msgrcv fails with EINVAL
  the key leads to queue QUEUE2 now: server SERVER2 answers
the shared memory
  the client attaches segment MEMORY1: \"server SERVER2, requests: 1\"
  the semaphore says of server SERVER2: it lives, and holds the lock
  server SERVER2 is killed: the segment says \"server SERVER2, requests: 1\", as before
  the semaphore says of server SERVER2: it is dead, nobody holds the lock
  server SERVER3 removes the segment: removed true, attached 1, and still \"server SERVER2, requests: 1\"
  the semaphore says of server SERVER2: it is another one now, SERVER3
  the key leads to segment MEMORY2 now: \"server SERVER3, requests: 0\"
  the client detaches the old one, as the last: shmctl: shared memory MEMORY1: EINVAL: Invalid argument
server SERVER3 is asked to stop; left: 0
";

/// Fails the test unless the text is the template; the numbers of its words in capitals.
#[track_caller]
fn numbers<'a>(shown: &'a str, template: &'static str) -> HashMap<&'static str, &'a str> {
    let mut numbers = HashMap::new();
    assert_eq!(shown.lines().count(), template.lines().count(), "{shown}");
    for (shown, template) in shown.lines().zip(template.lines()) {
        let (mut words, expected) = (shown.split(' '), template.split(' '));
        for expected in expected {
            let word = words.next().unwrap_or_default();
            let name = expected.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            if !["QUEUE", "SERVER", "MEMORY"].iter().any(|kind| name.starts_with(kind)) {
                assert_eq!(word, expected, "{shown}");
                continue;
            }
            let number = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{shown}");
            assert_eq!(*numbers.entry(name).or_insert(number), number, "{shown}");
        }
        assert_eq!(words.next(), None, "{shown}");
    }
    numbers
}

#[test]
fn a_client_finds_the_next_server_and_knows_the_old_ones_memory_for_what_it_is() {
    in_own_namespace(|| {
        let key = unique_key();
        let finished = run(&mut on(key, "restart"));
        assert_eq!(finished.stderr, "");
        let shown = String::from_utf8(finished.success()).unwrap();
        let numbers = numbers(&shown, SHOWN);
        for (one, other) in [("QUEUE1", "QUEUE2"), ("MEMORY1", "MEMORY2"), ("SERVER1", "SERVER2")] {
            assert_ne!(numbers[one], numbers[other], "{shown}");
        }
        assert_nothing_left(key);
    });
}

#[test]
fn whenever_it_is_told_to_end_it_leaves_nothing_and_no_server() {
    in_own_namespace(|| {
        let last = SHOWN.lines().count() - 1;
        for (lines, signal) in (0..last).zip([Signal::SIGINT, Signal::SIGTERM].iter().cycle()) {
            let key = unique_key();
            let mut command = on(key, "restart");
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut running = Running::start(command);
            let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
            for _ in 0..=lines {
                stdout.read_line(&mut String::new()).unwrap();
            }
            running.signal(*signal);
            // Its servers have the other end, too: so this ends when all of them have.
            stdout.read_to_string(&mut String::new()).unwrap();
            let ended = running.finish();
            match ended.code() {
                Some(130) => assert_eq!(ended.stderr, "restart: interrupted\n"),
                // It was done before the signal came.
                code => assert_eq!((code, ended.stderr.as_str()), (Some(0), "")),
            }
            assert_nothing_left(key);
        }
    });
}

#[test]
fn its_servers_end_when_it_is_killed() {
    in_own_namespace(|| {
        let key = unique_key();
        let mut running = Running::start(on(key, "restart").stdout(Stdio::piped()));
        let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
        for _ in 0..2 {
            stdout.read_line(&mut String::new()).unwrap();
        }
        running.signal(Signal::SIGKILL);
        running.wait();
        // What nobody can prevent: it was killed just when it had killed a server.
        wait_until("no server is left", || Lock::open(key).and_then(Lock::is_held) != Ok(true));
        clear(key);
        if let Ok(memory) = SharedMemory::open(key) {
            memory.remove().unwrap();
        }
    });
}

#[test]
fn a_key_in_use_is_left_alone() {
    in_own_namespace(|| {
        let key = unique_key();
        let foreign = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
        let refused = run(&mut on(key, "restart"));
        assert_eq!(refused.code(), Some(2));
        let told = format!("restart: key {key} is in use by another program\n");
        assert_eq!(refused.stderr, format!("{told}restart: the server did not start\n"));
        assert!(exists(*foreign));
        drop(foreign);

        let lock = Lock::open_or_create(key, Mode::new(0o644)).unwrap();
        assert_eq!(lock.try_acquire(), Ok(Acquire::Acquired));
        let refused = run(&mut on(key, "restart"));
        assert_eq!(refused.code(), Some(2));
        let pid = getpid();
        let told = format!("key {key} is in use: a server runs there already, pid {pid}");
        assert_eq!(refused.stderr, format!("restart: {told}\nrestart: the server did not start\n"));
        lock.remove().unwrap();
        assert_nothing_left(key);
    });
}
