//! Clients whose child dies, stalls or is slow.

use std::thread::sleep;
use std::time::{Duration, Instant};

use mqfs::counters::{FailureReason, Lookup, read};
use mqfs::sys::exit_now;
use mqfs::wire::{Failure, LEASE_TYPE, MAX_REPLY, REPLY_QUEUE_MODE};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use sysv_ipc::{MessageBuffer, Mode, OwnedQueue, Queue, Select};

use crate::support::{
    Server, fork_child, in_own_namespace, is_full, lease_of, leased_request, plain_request,
    queue_of, serve_quietly, wait_until,
};

/// A client that has asked for `/file`, and watches only its reply queue.
struct ByHand {
    queue: OwnedQueue,
    is_plain: bool,
}

impl ByHand {
    fn ask(server: &Server, is_plain: bool) -> Self {
        let mode = if is_plain { Mode::new(0o600) } else { REPLY_QUEUE_MODE };
        let (queue, requests) = (OwnedQueue::private(mode).unwrap(), queue_of(server.key).unwrap());
        let request = match is_plain {
            true => plain_request(*queue, "/file"),
            false => leased_request(*queue, requests, "/file"),
        };
        requests.send(&request).unwrap();
        Self { queue, is_plain }
    }

    /// Waits until the child sends, and changes the queue at another time than it was made.
    fn change_its_queue(&self) {
        wait_until("it sends", || self.queue.status().unwrap().messages > 2);
        let made = self.queue.status().unwrap().changed_at;
        wait_until("the kernel's clock shows it", || {
            self.queue.set(&self.queue.status().unwrap().settings()).unwrap();
            self.queue.status().unwrap().changed_at != made
        });
    }

    /// Waits for the next message; its type and text.
    #[track_caller]
    fn receive(&self) -> (i64, Vec<u8>) {
        let which = if self.is_plain { Select::Any } else { Select::Except(LEASE_TYPE) };
        let mut message = MessageBuffer::with_capacity(MAX_REPLY);
        wait_until("a message", || self.queue.try_receive(&mut message, which).is_ok());
        (message.mtype().get(), message.text().to_vec())
    }

    /// Receives everything up to a FAILURE, which says that the child died.
    #[track_caller]
    fn assert_told(&self) {
        loop {
            match self.receive() {
                (1, text) => {
                    let why = b"the server's child died on the way".to_vec();
                    let cookie = (!self.is_plain).then(|| lease_of(*self.queue).cookie);
                    let errno = cookie.map(|_| Errno::EOWNERDEAD);
                    return assert_eq!(
                        Failure::decode(&text),
                        Failure { text: why, errno, cookie }
                    );
                }
                (mtype, _) => assert_ne!(mtype, 3, "an END"),
            }
        }
    }
}

/// Waits until the only child waits for room in the queue, and kills it.
fn kill_the_child(server: &Server, queue: Queue) {
    wait_until("the queue is full", || is_full(queue));
    server.only_child().signal(Signal::SIGKILL);
    server.wait_until_idle();
}

#[in_own_namespace]
fn a_client_is_told_of_its_childs_death_once_its_queue_has_room() {
    let (server, _folder, _) = serve_quietly(1 << 20, &[]);
    for is_plain in [false, true] {
        let client = ByHand::ask(&server, is_plain);
        if is_plain {
            client.change_its_queue(); // which it may at any time
        }
        kill_the_child(&server, *client.queue);
        client.assert_told();
    }
    server.stop();
}

#[in_own_namespace]
fn a_stopping_server_tells_the_clients_of_the_children_that_it_kills() {
    let (mut server, _folder, _) = serve_quietly(1 << 20, &[]);
    let client = ByHand::ask(&server, true);
    wait_until("it sends", || client.queue.status().unwrap().messages > 2);
    server.only_child().freeze();
    // Twice: the first does not make the server wait.
    server.signal(Signal::SIGTERM);
    wait_until("it stops", || queue_of(server.key).is_none());
    assert_eq!(client.receive().0, 2, "a DATA");
    server.signal(Signal::SIGTERM);
    client.assert_told();
    assert!(server.running().wait().success());
}

#[in_own_namespace]
fn a_client_that_stalled_learns_that_its_child_gave_up() {
    let (server, _folder, _) = serve_quietly(1 << 20, &["--stall-timeout", "1s"]);
    for is_plain in [true, false] {
        let client = ByHand::ask(&server, is_plain);
        wait_until("it sends", || client.queue.status().unwrap().messages > 1);
        server.wait_until_idle();
        client.assert_told();
    }
    assert!(server.log().contains("client stalled"), "{}", server.log());
    let Ok(Lookup::Found(counted)) = read(server.key, None) else { panic!("no counters") };
    let failed: Vec<_> = counted.failures().filter(|(_, count)| *count > 0).collect();
    assert_eq!(failed, [(FailureReason::Stalled, 2)], "not as children that died as well");
    server.stop();
}

#[in_own_namespace]
fn a_stop_does_not_wait_for_clients_of_dead_children() {
    let (server, _folder, _) = serve_quietly(1 << 20, &["--drain-timeout", "1h"]);
    let client = ByHand::ask(&server, true);
    kill_the_child(&server, *client.queue);
    server.stop();
}

#[in_own_namespace]
fn every_transfer_has_its_timeout_and_so_have_those_of_a_forked_copy() {
    let (server, _folder, _) = serve_quietly(1 << 20, &[]);
    let client = mqfs::Client::builder().key(server.key).timeout(Duration::from_millis(300));
    let client = client.retries(0).build();
    server.freeze();
    let times_out = || {
        let start = Instant::now();
        let failed = client.open("/file").unwrap_err();
        failed.kind() == mqfs::ErrorKind::TimedOut && start.elapsed() < Duration::from_secs(10)
    };
    assert!(times_out(), "a thread watches, which the child does not have");
    let child = fork_child(|| {
        let all_time_out = (0..3).all(|_| {
            sleep(Duration::from_millis(300)); // a pause between two checks of the watch
            times_out()
        });
        exit_now(i32::from(!all_time_out))
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
}
