//! A user floods the request queue while another one fetches.

use std::fs;
use std::thread;

use crate::support::fork_child;
use mqfs::sys::exit_now;
use mqfs::wire::{LEASE_TYPE, REPLY_QUEUE_MODE};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, Uid, setresuid};
use sysv_ipc::{MessageBuffer, MessageType, OwnedQueue, Queue, QueueLimits, SendError};
use tempfile::TempDir;

use crate::support::{
    ForEverybody, SOMEBODY, Server, as_root_in_own_namespace, children_of, leased_request, noise,
    number, queue_of, run, serve_file, wait_until,
};

const VICTIM: u32 = SOMEBODY - 1;

/// Code that runs as another user, in a process of its own.
struct Flooder(Pid);

impl Flooder {
    fn start(work: impl FnOnce()) -> Self {
        let flooder = fork_child(|| {
            let uid = Uid::from_raw(SOMEBODY);
            setresuid(uid, uid, uid).unwrap();
            work();
            exit_now(0)
        });
        Self(flooder.unwrap())
    }

    /// Whether it has finished; fails the test if its work failed.
    fn is_done(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.0), look) {
            Ok(WaitStatus::StillAlive) => false,
            ended => {
                assert_eq!(ended, Ok(WaitStatus::Exited(self.0, 0)));
                true
            }
        }
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// A server that everybody may ask, and the 4 MiB that it serves as /file.
fn server() -> (Server, TempDir, Vec<u8>) {
    let served = serve_file(4 << 20, &["--mode", "0622"]);
    fs::write(served.1.path().join("small"), "small").unwrap();
    served
}

/// The user of a process; None if it has ended.
fn uid_of(pid: i32) -> Option<u32> {
    Some(number(pid, "status", "Uid")? as u32)
}

/// The largest number of children that answer this user at once during the flood.
fn most_children_of(uid: u32, server: &Server, flooder: &Flooder) -> usize {
    let mut most = 0;
    while !flooder.is_done() {
        let children = children_of(server.pid()).into_iter();
        most = most.max(children.filter(|&child| uid_of(child) == Some(uid)).count());
    }
    most
}

/// Fetches as the victim during the flood, and once more. Returns how often.
fn fetch_during(flooder: &Flooder, server: &Server, file: &[u8]) -> usize {
    let programs = ForEverybody::new();
    for fetched in 1.. {
        let over = flooder.is_done();
        assert!(run(programs.client(server.key, VICTIM).arg("/file")).success() == file);
        if over {
            return fetched;
        }
    }
    unreachable!()
}

fn send(requests: Queue, message: &MessageBuffer) {
    loop {
        match requests.send(message) {
            Ok(()) => return,
            Err(SendError::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_hundred_thousand_garbage_messages_harm_nobody() {
    const MESSAGES: usize = 100_000;
    as_root_in_own_namespace(|| {
        let (server, _folder, file) = server();
        let requests = queue_of(server.key).unwrap();
        let flooder = Flooder::start(|| {
            let msgmax = QueueLimits::current().unwrap().msgmax;
            let garbage = noise(msgmax + MESSAGES);
            let types = [1, 2, 3, 4, 10, LEASE_TYPE.get(), i64::MAX - 1, i64::MAX];
            for n in 0..MESSAGES {
                let mtype = types.get(n % 16).copied().unwrap_or((n as i64) << (n % 40) | 1);
                let text = &garbage[n..][..n % (msgmax + 1)];
                send(requests, &MessageBuffer::with_text(MessageType::new(mtype).unwrap(), text));
            }
        });
        let fetched = fetch_during(&flooder, &server, &file);
        assert!(fetched > 1, "nobody fetched during the flood");
        wait_until("the queue is empty", || requests.status().unwrap().messages == 0);
        assert!(server.log().contains("malformed"), "{}", server.log());
        assert!(server.log().lines().count() < 1000, "the flood is told of in a few lines");
        server.stop();
    });
}

/// A hand-made reply queue, and the request that names it.
struct Asker {
    _queue: OwnedQueue,
    request: MessageBuffer,
}

impl Asker {
    fn new(requests: Queue, path: &str) -> Self {
        let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
        let request = leased_request(*queue, requests, path);
        Self { _queue: queue, request }
    }
}

#[test]
fn ten_thousand_requests_of_one_user_do_not_starve_another() {
    const REQUESTS: usize = 10_000;
    as_root_in_own_namespace(|| {
        let (server, _folder, file) = server();
        let requests = queue_of(server.key).unwrap();
        let flooder = Flooder::start(|| {
            let mut askers: Vec<_> = (0..32).map(|_| Asker::new(requests, "/file")).collect();
            for n in 0..REQUESTS {
                let turn = n % askers.len();
                // Eight of them are valid, but nobody reads their replies, so they occupy their
                // children.
                if turn >= 8 {
                    askers[turn] = Asker::new(requests, "/small");
                }
                send(requests, &askers[turn].request);
            }
        });
        let most = thread::scope(|scope| {
            let most = scope.spawn(|| most_children_of(SOMEBODY, &server, &flooder));
            fetch_during(&flooder, &server, &file);
            most.join().unwrap()
        });
        assert!(most <= 16, "{most} children of the flooder");
        assert!(server.log().contains("as many children as one may have"));
        drop(flooder);
        wait_until("its children end", || children_of(server.pid()).is_empty());
        server.stop();
    });
}
