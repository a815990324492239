//! How much a user who floods the request queue delays another user: the time of a small fetch,
//! alone and during each flood. `cargo bench --bench flood [ROUNDS]`, best as root: only then are
//! the two different users, as in docs/security.md.

#![allow(missing_docs)]

use std::io::Read;
use std::time::Instant;

use mqfs::sys::exit_now;
use mqfs::wire::{NORMAL_PRIORITY, REPLY_QUEUE_MODE};
use mqfs_kit::{SOMEBODY, Server, enter_own_namespace, fork_child, leased_request};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, geteuid, setresuid};
use sysv_ipc::{Key, MessageBuffer, MessageType, OwnedQueue, Queue, SendError};

const FLOODER: Uid = Uid::from_raw(SOMEBODY);
const ROUNDS: usize = 400;

/// What the flooders send.
#[derive(Debug, Clone, Copy)]
enum Flood {
    /// Empty messages, so that the queue holds as many as possible.
    Empty,
    /// Empty messages of types that the server must search through.
    Types,
    /// The largest messages.
    Large,
    /// Valid requests, more than one user may have under way.
    Valid,
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(ROUNDS);
    if !enter_own_namespace() {
        eprintln!("no IPC namespace of its own: measuring in the common one");
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), [7; 1024]).unwrap();
    let folder = root.path().to_str().unwrap();
    let server = Server::start(&["--quiet", "--mode", "0622", "--root", folder]);
    let key = server.key;
    println!("flood      flooders    median ms       p99 ms       max ms");
    for (flood, crowds) in [
        (None, &[0][..]),
        (Some(Flood::Empty), &[1, 2, 8]),
        (Some(Flood::Types), &[1, 2, 8]),
        (Some(Flood::Large), &[1, 2, 8]),
        (Some(Flood::Valid), &[1, 2, 8]),
    ] {
        for &flooders in crowds {
            let pids: Vec<_> =
                (0..flooders).filter_map(|_| Some(start_flooder(flood?, key))).collect();
            let times = fetch_repeatedly(key, rounds);
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
            }
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] * 1e3;
            println!(
                "{:<10} {flooders:>8} {:>12.3} {:>12.3} {:>12.3}",
                flood.map_or("none".to_owned(), |flood| format!("{flood:?}").to_lowercase()),
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
    server.stop();
}

/// The seconds that each fetch took, sorted.
fn fetch_repeatedly(key: Key, rounds: usize) -> Vec<f64> {
    let client = mqfs::Client::builder().key(key).sessions(false).build();
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let mut bytes = Vec::new();
            client.open("/file").unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), 1024);
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn start_flooder(flood: Flood, key: Key) -> Pid {
    fork_child(|| {
        if geteuid().is_root() {
            setresuid(FLOODER, FLOODER, FLOODER).unwrap();
        }
        let requests = Queue::open(key).unwrap();
        match flood {
            Flood::Empty => repeat(requests, |_| MessageBuffer::with_text(NORMAL_PRIORITY, &[])),
            Flood::Types => repeat(requests, |n| {
                let mtype = MessageType::new(1_000_000_000 - (n % 900_000_000)).unwrap();
                MessageBuffer::with_text(mtype, &[])
            }),
            Flood::Large => {
                repeat(requests, |_| MessageBuffer::with_text(NORMAL_PRIORITY, &[b'x'; 8192]))
            }
            Flood::Valid => {
                // Nobody reads the replies.
                let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
                let request = leased_request(*queue, requests, "/file");
                repeat(requests, |_| MessageBuffer::with_text(NORMAL_PRIORITY, request.text()))
            }
        }
    })
    .unwrap()
}

fn repeat(requests: Queue, message: impl Fn(i64) -> MessageBuffer) -> ! {
    for n in 0.. {
        match requests.send(&message(n)) {
            Ok(()) | Err(SendError::Interrupted) => {}
            Err(_) => break,
        }
    }
    exit_now(0)
}
