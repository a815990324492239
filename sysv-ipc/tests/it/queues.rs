//! What the kernel does with message queues.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::common::{in_own_namespace, mtype, own_key, wait_until};
use sysv_ipc::{
    Error, Gid, Key, MessageBuffer, MessageType, Mode, OwnedQueue, Pid, Queue, QueueLimits,
    QueueSettings, ReceiveError, Select, SendError, Uid,
};

fn queue() -> OwnedQueue {
    OwnedQueue::private(Mode::new(0o600)).unwrap()
}

fn send(queue: Queue, number: i64, text: &[u8]) {
    queue.try_send(&MessageBuffer::with_text(mtype(number), text)).unwrap();
}

/// Receives all messages and returns their types.
fn types(queue: Queue, which: Select) -> Vec<i64> {
    let mut message = MessageBuffer::with_capacity(8192);
    std::iter::from_fn(|| {
        queue.try_receive(&mut message, which).ok().map(|()| message.mtype().get())
    })
    .collect()
}

#[test]
fn a_queue_is_found_by_its_key_and_created_only_once() {
    let key = own_key();
    assert!(Queue::open(key).unwrap_err().is_gone());
    assert!(Queue::open(Key::PRIVATE).unwrap_err().is_gone());
    let own = OwnedQueue::create(key, Mode::new(0o640)).unwrap();
    assert_eq!(Queue::open(key), Ok(*own));
    assert_eq!(Queue::open_or_create(key, Mode::new(0o640)), Ok(*own));
    let error = Queue::create(key, Mode::new(0o640)).unwrap_err();
    assert!(error.already_exists());
    assert_eq!(error.to_string(), format!("msgget: key {key}: EEXIST: File exists"));
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::AlreadyExists);
}

#[test]
fn status_tells_who_made_it_and_who_used_it() {
    let own = queue();
    send(*own, 1, b"hello");
    let status = own.status().unwrap();
    assert_eq!((status.messages, status.bytes), (1, 5));
    assert_eq!(status.last_sender, Some(Pid::current()));
    assert_eq!((status.last_receiver, status.received_at), (None, None));
    assert!(status.sent_at >= Some(status.changed_at));
    let permissions = status.permissions;
    assert_eq!(permissions.uid, Uid::from_raw(nix::unistd::geteuid().as_raw()));
    assert_eq!(permissions.cgid, Gid::from_raw(nix::unistd::getegid().as_raw()));
    assert!(permissions.key.is_private());
    assert_eq!(permissions.seq, u32::try_from(own.id().get()).unwrap() >> 15);
}

#[test]
fn status_needs_no_permission() {
    let own = OwnedQueue::private(Mode::new(0)).unwrap();
    let status = || own.status().map(|status| status.permissions.mode);
    assert_eq!(status(), Ok(Mode::new(0)));
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    assert!(crate::common::in_child(|| {
        nix::unistd::setuid(nix::unistd::Uid::from_raw(65_533)).is_ok()
            && status() == Ok(Mode::new(0))
            && own.remove().unwrap_err().is_denied()
    }));
}

#[test]
fn settings_change_what_they_say_and_nothing_else() {
    let own = queue();
    let before = own.status().unwrap();
    let settings = before.settings();
    own.set(&QueueSettings { mode: Mode::new(0o622), max_bytes: 4096, ..settings }).unwrap();
    let after = own.status().unwrap();
    assert_eq!((after.permissions.mode, after.max_bytes), (Mode::new(0o622), 4096));
    assert_eq!((after.permissions.uid, after.permissions.gid), (settings.uid, settings.gid));
}

#[test]
fn select_chooses_by_type() {
    let own = queue();
    let fill = || [3, 1, 2, 1].map(|number| send(*own, number, b""));
    for (which, expected) in [
        (Select::Any, vec![3, 1, 2, 1]),
        (Select::Type(mtype(1)), vec![1, 1]),
        (Select::UpTo(mtype(2)), vec![1, 1, 2]),
        (Select::UpTo(MessageType::MAX), vec![1, 1, 2, 3]),
        (Select::Except(mtype(1)), vec![3, 2]),
    ] {
        fill();
        assert_eq!(types(*own, which), expected, "{which:?}");
        types(*own, Select::Any);
    }
}

#[test]
fn peek_leaves_the_message_where_it_is() {
    let own = queue();
    send(*own, 7, b"first");
    send(*own, 8, b"second");
    let mut message = MessageBuffer::with_capacity(8);
    match own.peek(&mut message, 1) {
        Err(ReceiveError::Os(error)) if error.raw_os_error() == libc::ENOSYS => {
            return eprintln!("skipped: a kernel without MSG_COPY");
        }
        outcome => outcome.unwrap(),
    }
    assert_eq!((message.mtype(), message.text()), (mtype(8), &b"second"[..]));
    assert_eq!(own.peek(&mut message, 2), Err(ReceiveError::Empty));
    assert_eq!(own.peek(&mut MessageBuffer::with_capacity(1), 0), Err(ReceiveError::TooBig));
    assert_eq!(own.status().unwrap().messages, 2);
}

#[test]
fn a_message_larger_than_the_buffer_stays_or_is_cut() {
    let own = queue();
    send(*own, 1, b"too long");
    let mut message = MessageBuffer::with_capacity(3);
    assert_eq!(own.receive(&mut message, Select::Any), Err(ReceiveError::TooBig));
    own.receive_truncated(&mut message, Select::Any).unwrap();
    assert_eq!(message.text(), b"too");
    assert_eq!(own.try_receive(&mut message, Select::Any), Err(ReceiveError::Empty));
}

#[test]
fn a_message_larger_than_msgmax_is_told_from_a_queue_that_is_gone() {
    let own = queue();
    let msgmax = QueueLimits::current().unwrap().msgmax;
    let large = MessageBuffer::with_text(mtype(1), &vec![0; msgmax + 1]);
    assert_eq!(own.send(&large), Err(SendError::TooBig));
    let gone = *own;
    drop(own);
    let small = MessageBuffer::with_text(mtype(1), b"");
    assert_eq!(gone.send(&small), Err(SendError::Gone));
    assert_eq!(SendError::Gone.kind(), ErrorKind::NotFound);
}

#[test]
fn removal_wakes_a_receiver() {
    let own = queue();
    let gone = *own;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut message = MessageBuffer::with_capacity(8);
            gone.receive(&mut message, Select::Any)
        });
        std::thread::sleep(Duration::from_millis(20));
        drop(own);
        assert_eq!(waiting.join().unwrap(), Err(ReceiveError::Gone));
    });
}

#[test]
fn messages_are_appended_and_sent_in_parts() {
    let own = queue();
    send(*own, 3, b"sixteen bytes...");
    send(*own, 4, b"and more");
    send(*own, 5, b"too much");
    let mut buffer = MessageBuffer::with_capacity(24);
    own.receive_appending(&mut buffer, Select::Any).unwrap();
    own.receive_appending(&mut buffer, Select::Any).unwrap();
    assert_eq!((buffer.mtype(), buffer.text()), (mtype(4), &b"sixteen bytes...and more"[..]));
    assert!(!buffer.has_room_for(1));
    let full = own.receive_appending(&mut buffer, Select::Any);
    assert_eq!(full, Err(ReceiveError::TooBig));
    assert_eq!((buffer.mtype(), buffer.text()), (mtype(4), &b"sixteen bytes...and more"[..]));
    buffer.truncate(16);
    own.receive_appending(&mut buffer, Select::Any).unwrap();
    assert_eq!((buffer.mtype(), buffer.text()), (mtype(5), &b"sixteen bytes...too much"[..]));

    own.send(buffer.part(mtype(6), 0..16)).unwrap();
    own.send(buffer.part(mtype(7), 16..19)).unwrap();
    let mut message = MessageBuffer::with_capacity(16);
    own.receive(&mut message, Select::Any).unwrap();
    assert_eq!((message.mtype(), message.text()), (mtype(6), &b"sixteen bytes..."[..]));
    own.receive(&mut message, Select::Any).unwrap();
    assert_eq!((message.mtype(), message.text()), (mtype(7), &b"too"[..]));
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let own = queue();
    let mut message = MessageBuffer::with_capacity(8);
    let start = Instant::now();
    let deadline = start + Duration::from_millis(30);
    let outcome = own.receive_until(&mut message, Select::Any, deadline);
    assert_eq!(outcome, Err(ReceiveError::TimedOut));
    assert!(start.elapsed() >= Duration::from_millis(30));
    send(*own, 1, b"late");
    own.receive_until(&mut message, Select::Any, deadline).expect("tries once, even when late");
}

#[test]
fn a_wait_with_a_deadline_finds_what_comes_and_what_goes() {
    let own = queue();
    let queue = *own;
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut message = MessageBuffer::with_capacity(8);
            let first = queue.receive_until(&mut message, Select::Any, deadline);
            (first, queue.receive_until(&mut message, Select::Any, deadline))
        });
        send(queue, 1, b"here");
        wait_until("received", || queue.status().unwrap().messages == 0);
        drop(own);
        assert_eq!(waiting.join().unwrap(), (Ok(()), Err(ReceiveError::Gone)));
    });
}

#[test]
fn a_sender_waits_for_room_until_its_deadline() {
    in_own_namespace(|| {
        let own = queue();
        let queue = *own;
        let settings = QueueSettings { max_bytes: 8, ..own.status().unwrap().settings() };
        own.set(&settings).unwrap();
        let message = MessageBuffer::with_text(mtype(1), b"12345678");
        own.try_send(&message).unwrap();
        assert_eq!(own.try_send(&message), Err(SendError::Full));
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(own.send_until(&message, soon), Err(SendError::TimedOut));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                types(queue, Select::Any)
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            own.send_until(&message, deadline).unwrap();
        });
    });
}

#[test]
fn a_namespace_has_no_more_queues_than_its_limit() {
    in_own_namespace(|| {
        std::fs::write("/proc/sys/kernel/msgmni", "2").unwrap();
        let two = [queue(), queue()];
        let full: Error = OwnedQueue::private(Mode::new(0o600)).unwrap_err();
        assert!(full.is_out_of_space());
        assert_eq!(QueueLimits::current().unwrap().msgmni, 2);
        drop(two);
    });
}
