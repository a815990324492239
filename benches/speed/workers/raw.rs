//! A sender and a receiver that only send and receive, or also read a file, checksum it twice and
//! write it. They differ in how they wait.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use mqfs::sys::{AdaptiveSpin, exit_now};
use mqfs_kit::fork_child;
use nix::sys::wait::waitpid;
use sysv_ipc::{
    MessageBuffer, MessageType, Mode, OwnedQueue, Queue, ReceiveError, Select, SendError,
};

/// How to wait for room, or for a message.
#[derive(Debug, Clone)]
enum Policy {
    /// In the kernel.
    Block,
    /// Never: trying, and yielding in between, until it works.
    Try,
    /// As mqfs does.
    Adapt(AdaptiveSpin),
}

const DATA: MessageType = MessageType::new(2).unwrap();
const END: MessageType = MessageType::new(3).unwrap();

pub(super) fn main(arguments: &[String]) {
    let [policy, chunk, size, file @ ..] = arguments else {
        panic!("raw POLICY CHUNK SIZE [FILE]")
    };
    let policy = match &**policy {
        "block" => Policy::Block,
        "try" => Policy::Try,
        "adapt" => Policy::Adapt(AdaptiveSpin::default()),
        _ => panic!("{policy}: no such policy"),
    };
    let (chunk, size) = (chunk.parse().expect("bytes"), size.parse().expect("bytes"));
    let queue = OwnedQueue::private(Mode::new(0o600)).expect("a queue");
    let sender = fork_child(|| match file.first() {
        Some(file) => send_file(*queue, policy.clone(), chunk, file),
        None => send_nothing(*queue, policy.clone(), chunk, size),
    });
    let received = match file.first() {
        Some(_) => receive_file(*queue, policy, chunk),
        None => receive_nothing(*queue, policy, chunk),
    };
    assert_eq!(received, size, "as many bytes as were sent");
    waitpid(sender.expect("a child"), None).expect("our child");
}

fn send_nothing(queue: Queue, mut policy: Policy, chunk: usize, size: u64) -> Infallible {
    let whole = MessageBuffer::with_text(DATA, &vec![7; chunk]);
    let mut left = size;
    while left >= chunk as u64 {
        policy.send(queue, &whole);
        left -= chunk as u64;
    }
    policy.send(queue, &MessageBuffer::with_text(END, &whole.text()[..left as usize]));
    exit_now(0)
}

fn receive_nothing(queue: Queue, mut policy: Policy, chunk: usize) -> u64 {
    let mut message = MessageBuffer::with_capacity(chunk);
    let mut count = 0;
    loop {
        policy.receive(queue, &mut message);
        count += message.text().len() as u64;
        if message.mtype() == END {
            return count;
        }
    }
}

fn send_file(queue: Queue, mut policy: Policy, chunk: usize, file: &str) -> Infallible {
    let mut file = File::open(file).expect("a file");
    let mut message = MessageBuffer::with_capacity(chunk);
    let mut checksum = crc32fast::Hasher::new();
    while message.fill(DATA, |room| file.read(room)).expect("bytes") > 0 {
        checksum.update(message.text());
        policy.send(queue, &message);
    }
    policy.send(queue, &MessageBuffer::with_text(END, &checksum.finalize().to_ne_bytes()));
    exit_now(0)
}

fn receive_file(queue: Queue, mut policy: Policy, chunk: usize) -> u64 {
    let mut output = File::create("/dev/null").expect("/dev/null");
    let mut message = MessageBuffer::with_capacity(chunk);
    let mut checksum = crc32fast::Hasher::new();
    let mut count = 0;
    loop {
        policy.receive(queue, &mut message);
        if message.mtype() == END {
            assert_eq!(message.text(), checksum.finalize().to_ne_bytes());
            return count;
        }
        checksum.update(message.text());
        output.write_all(message.text()).expect("/dev/null takes it");
        count += message.text().len() as u64;
    }
}

impl Policy {
    fn send(&mut self, queue: Queue, message: &MessageBuffer) {
        let mut attempt = || match queue.try_send(message) {
            Err(SendError::Full | SendError::Interrupted) => None,
            outcome => Some(outcome),
        };
        let sent = match self {
            Self::Block => queue.send(message),
            Self::Try => until_done(attempt),
            Self::Adapt(spin) => spin.attempt(&mut attempt).unwrap_or_else(|| queue.send(message)),
        };
        if sent.is_err() {
            exit_now(1); // the receiver failed, and its queue is gone
        }
    }

    fn receive(&mut self, queue: Queue, message: &mut MessageBuffer) {
        let attempt = |message: &mut MessageBuffer| match queue.try_receive(message, Select::Any) {
            Err(ReceiveError::Empty | ReceiveError::Interrupted) => None,
            outcome => Some(outcome),
        };
        let received = match self {
            Self::Block => queue.receive(message, Select::Any),
            Self::Try => until_done(|| attempt(message)),
            Self::Adapt(spin) => spin
                .attempt(|| attempt(message))
                .unwrap_or_else(|| queue.receive(message, Select::Any)),
        };
        received.expect("a message");
    }
}

fn until_done<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        thread::yield_now();
    }
}
