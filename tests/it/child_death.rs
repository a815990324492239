//! Clients whose child dies, stalls or is slow.

use std::fs;
use std::time::Duration;

use crate::support::fork_child;
use mqfs::ownership::lease;
use mqfs::sys::exit_now;
use mqfs::wire::{
    Arrived, Cookie, Extension, Failure, LEASE_TYPE, MAX_REPLY, NORMAL_PRIORITY, Operation,
    REPLY_QUEUE_MODE, Range, Reply, Request,
};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Queue, Select};
use tempfile::TempDir;

use crate::support::{
    Server, children_of, in_own_namespace, noise, queue_of, serve_file, wait_until,
};

/// A server that has removed orphans once, and a folder with a /file that is larger than a queue.
fn server() -> (Server, TempDir) {
    server_with(&[])
}

fn server_with(arguments: &[&str]) -> (Server, TempDir) {
    let usual = ["--reap-interval", "1h"];
    let (server, folder, _) = serve_file(1 << 20, &[&usual, arguments].concat());
    server.fetch("/file");
    server.wait_until_idle();
    (server, folder)
}

/// A client that watches only its reply queue.
struct ByHand {
    queue: OwnedQueue,
    cookie: Option<Cookie>,
}

impl ByHand {
    fn extended(server: &Server) -> Self {
        let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
        let lease = lease::new(queue_of(server.key).unwrap().id()).unwrap();
        queue.try_send(&MessageBuffer::with_text(LEASE_TYPE, &lease.encode())).unwrap();
        Self { queue, cookie: Some(lease.cookie) }
    }

    fn plain() -> Self {
        Self { queue: OwnedQueue::private(Mode::new(0o600)).unwrap(), cookie: None }
    }

    fn ask(&self, server: &Server, path: &str, operation: Operation) {
        let extension = self.cookie.map(|cookie| Extension { cookie, operation });
        let request = Request { reply_queue: self.queue.id(), path: path.as_ref(), extension };
        let message = MessageBuffer::with_text(NORMAL_PRIORITY, &request.encode());
        queue_of(server.key).unwrap().send(&message).unwrap();
    }

    /// Waits for the next message.
    #[track_caller]
    fn receive(&self) -> (MessageType, Vec<u8>) {
        let which = match self.cookie {
            Some(_) => Select::Except(LEASE_TYPE),
            None => Select::Any,
        };
        let mut message = MessageBuffer::with_capacity(MAX_REPLY);
        wait_until("a message", || self.queue.try_receive(&mut message, which).is_ok());
        (message.mtype(), message.text().to_vec())
    }

    /// The FAILURE that comes instead of an END.
    #[track_caller]
    fn failure(&self) -> Failure {
        loop {
            match self.receive() {
                (mtype, text) if mtype == Reply::FAILURE => {
                    let Ok(Reply::Failure(failure)) = Reply::decode(mtype, &text) else {
                        panic!("{text:?}");
                    };
                    return failure;
                }
                (mtype, _) => assert_ne!(mtype, Reply::END),
            }
        }
    }
}

/// Waits until the only child waits for room in the queue, and kills it.
fn kill_the_child(server: &Server, queue: Queue) {
    wait_until("the queue is full", || {
        queue.status().is_ok_and(|status| status.bytes + 8136 > status.max_bytes)
    });
    wait_until("a child serves", || children_of(server.pid()).len() == 1);
    kill(Pid::from_raw(children_of(server.pid())[0]), Signal::SIGKILL).unwrap();
    wait_until("it is gone", || children_of(server.pid()).is_empty());
}

const TEXT: &[u8] = b"the server's child died on the way";

#[test]
fn a_client_is_told_of_its_childs_death_once_its_queue_has_room() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        let client = ByHand::extended(&server);
        client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
        kill_the_child(&server, *client.queue);
        let expected = Failure { text: TEXT.to_vec(), errno: Some(Errno::EOWNERDEAD) };
        assert_eq!(client.failure(), expected);
        server.stop();
    });
}

#[test]
fn a_plain_client_is_told_of_its_childs_death() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        let client = ByHand::plain();
        client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
        kill_the_child(&server, *client.queue);
        assert_eq!(client.failure(), Failure { text: TEXT.to_vec(), errno: None });
        server.stop();
    });
}

#[test]
fn a_client_is_told_of_its_childs_death_before_the_first_message() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        // The largest queue that a server would make.
        let _ = fs::write("/proc/sys/kernel/msgmnb", "65536");
        let client = ByHand::extended(&server);
        let own = MessageBuffer::with_text(MessageType::new(77).unwrap(), &[0; 8160]);
        while client.queue.try_send(&own).is_ok() {}
        client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
        kill_the_child(&server, *client.queue);
        assert_eq!(client.failure().errno, Some(Errno::EOWNERDEAD));
        assert_eq!(client.queue.status().unwrap().messages, 1, "the lease, and no META");
        server.stop();
    });
}

#[test]
fn a_stopping_server_tells_the_clients_of_the_children_that_it_kills() {
    in_own_namespace(|| {
        let (mut server, _folder) = server();
        let client = ByHand::plain();
        client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
        wait_until("it sends", || client.queue.status().unwrap().messages > 2);
        let child = children_of(server.pid())[0];
        kill(Pid::from_raw(child), Signal::SIGSTOP).unwrap();
        // Twice: the first does not make the server wait.
        server.signal(Signal::SIGTERM);
        wait_until("it stops", || queue_of(server.key).is_none());
        let (first, _) = client.receive();
        assert_eq!(first, Reply::DATA);
        server.signal(Signal::SIGTERM);
        assert_eq!(client.failure(), Failure { text: TEXT.to_vec(), errno: None });
        assert!(server.running().wait().success());
    });
}

#[test]
fn a_child_that_verifies_earlier_bytes_keeps_its_client_informed() {
    in_own_namespace(|| {
        const ARRIVED: u64 = 1 << 40; // takes longer than any client waits
        let (server, folder) = server();
        let sparse = fs::File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(2 * ARRIVED).unwrap();
        let client = ByHand::extended(&server);
        let rest = Range { offset: ARRIVED, length: Some(1) };
        let arrived = Arrived { start: 0, checksum: 0 };
        client.ask(&server, "/sparse", Operation::Resume(rest, arrived));
        assert_eq!(client.receive().0, Reply::META);
        for _ in 0..2 {
            assert_eq!(client.receive(), (Reply::DATA, Vec::new()), "a sign of life");
        }
        drop(client.queue);
        wait_until("the child ends", || children_of(server.pid()).is_empty());
        server.stop();
    });
}

#[test]
fn a_transfer_resumes_only_after_verified_bytes() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        let file = noise(1 << 20);
        let rest = Range { offset: 5000, length: Some(100) };
        let ask = |checksum| {
            let client = ByHand::extended(&server);
            let arrived = Arrived { start: 1000, checksum };
            client.ask(&server, "/file", Operation::Resume(rest, arrived));
            client
        };
        let checksum = crc32fast::hash(&file[1000..5000]);
        let client = ask(checksum);
        assert_eq!(client.receive().0, Reply::META);
        assert_eq!(client.receive(), (Reply::DATA, file[5000..5100].to_vec()));
        assert_eq!(client.receive().0, Reply::END);
        let client = ask(checksum ^ 1);
        assert_eq!(client.receive().0, Reply::META);
        assert_eq!(client.failure().errno, Some(Errno::ESTALE));
        server.stop();
    });
}

#[test]
fn a_client_that_stalled_learns_that_its_child_gave_up() {
    in_own_namespace(|| {
        let (server, _folder) = server_with(&["--stall-timeout", "1s"]);
        for client in [ByHand::plain(), ByHand::extended(&server)] {
            client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
            wait_until("it sends", || client.queue.status().unwrap().messages > 1);
            wait_until("the child gives up", || children_of(server.pid()).is_empty());
            assert_eq!(client.failure().text, TEXT);
        }
        assert!(server.log().contains("client stalled"), "{}", server.log());
        server.stop();
    });
}

#[test]
fn a_client_that_reads_no_keepalive_has_stalled() {
    in_own_namespace(|| {
        const ARRIVED: u64 = 1 << 40;
        let (server, folder) = server_with(&["--stall-timeout", "2s"]);
        let sparse = fs::File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(2 * ARRIVED).unwrap();
        let client = ByHand::extended(&server);
        let arrived = Arrived { start: 0, checksum: 0 };
        let rest = Range { offset: ARRIVED, length: Some(1) };
        client.ask(&server, "/sparse", Operation::Resume(rest, arrived));
        wait_until("it compares", || client.queue.status().unwrap().messages > 1);
        wait_until("the child gives up", || children_of(server.pid()).is_empty());
        assert!(server.log().contains("client stalled"), "{}", server.log());
        server.stop();
    });
}

#[test]
fn a_plain_client_may_change_its_queue_during_a_transfer() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        let client = ByHand::plain();
        client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
        wait_until("it sends", || client.queue.status().unwrap().messages > 2);
        let made = client.queue.status().unwrap().changed_at;
        wait_until("the kernel's clock shows it", || {
            client.queue.set(&client.queue.status().unwrap().settings()).unwrap();
            client.queue.status().unwrap().changed_at != made
        });
        kill_the_child(&server, *client.queue);
        assert_eq!(client.failure().text, TEXT);
        server.stop();
    });
}

#[test]
fn a_stop_does_not_wait_for_clients_of_dead_children() {
    in_own_namespace(|| {
        let (server, _folder) = server_with(&["--drain-timeout", "1h"]);
        let client = ByHand::plain();
        client.ask(&server, "/file", Operation::Fetch(Range::WHOLE));
        kill_the_child(&server, *client.queue);
        server.stop();
    });
}

#[test]
fn a_forked_copy_of_a_client_waits_no_longer_than_its_timeout() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        let client = mqfs::Client::builder().key(server.key).timeout(Duration::from_secs(1));
        let client = client.retries(0).build();
        server.freeze();
        // A thread of the parent, which the child does not have.
        assert_eq!(client.open("/file").unwrap_err().kind(), mqfs::ErrorKind::TimedOut);
        let child = fork_child(|| {
            let in_time =
                client.open("/file").is_err_and(|error| error.kind() == mqfs::ErrorKind::TimedOut);
            exit_now(if in_time { 0 } else { 1 })
        });
        let pid = child.unwrap();
        let mut ended = WaitStatus::StillAlive;
        wait_until("the copy gives up", || {
            ended = waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap();
            ended != WaitStatus::StillAlive
        });
        assert_eq!(ended, WaitStatus::Exited(pid, 0));
        server.signal(Signal::SIGCONT);
        server.stop();
    });
}
