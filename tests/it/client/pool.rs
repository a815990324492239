//! The sessions that a library's user never sees: they are shared, replaced and removed.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use mqfs::counters::{Lookup, Snapshot};
use mqfs::sys::exit_now;
use mqfs::{Client, Transfer};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use sysv_ipc::Key;
use tempfile::TempDir;

use crate::support::{
    Server, fork_child, in_own_namespace, noise, public_folder, reply_queues, serve_quietly,
    state_of, wait_until,
};

/// A server of `/file`, which has removed orphans, and a client that has asked nothing.
fn site(arguments: &[&str]) -> (Server, TempDir, Client) {
    let (server, folder, _) = serve_quietly(50_000, arguments);
    let client = Client::new(server.key);
    (server, folder, client)
}

fn counters(key: Key) -> Snapshot {
    match mqfs::counters::read(key, None) {
        Ok(Lookup::Found(snapshot)) => *snapshot,
        other => panic!("{other:?}"),
    }
}

fn read(mut transfer: Transfer) -> Vec<u8> {
    let mut bytes = Vec::new();
    transfer.read_to_end(&mut bytes).unwrap();
    assert!(transfer.is_verified());
    bytes
}

fn fetch(client: &Client) -> bool {
    read(client.open("/file").unwrap()) == noise(50_000)
}

#[in_own_namespace]
fn calls_one_after_the_other_share_a_session() {
    let (server, _folder, client) = site(&[]);
    let before = counters(server.key);
    for _ in 0..50 {
        assert!(fetch(&client));
    }
    assert_eq!(client.clone().metadata("/file").unwrap().len(), 50_000);
    assert_eq!(client.open("/none").unwrap_err().kind(), mqfs::ErrorKind::NotFound);
    assert_eq!(read(client.open_range("/file", 7..9).unwrap()), noise(50_000)[7..9]);
    assert_eq!(read(client.open_range("/file", ..=9).unwrap()), noise(50_000)[..=9]);
    assert_eq!(read(client.open_range("/file", ..).unwrap()), noise(50_000));
    assert_eq!(client.read_dir("/").unwrap().count(), 2);
    let mut walk = client.walk("/").unwrap();
    let mut entries = 0;
    while walk.next_entry().unwrap().is_some() {
        entries += 1;
    }
    assert_eq!(entries, 3);
    let mut files = client.open_all(["/file", "/none", "/file"]);
    let mut outcomes = Vec::new();
    while let Some(file) = files.next_file() {
        outcomes.push(file.is_ok()); // and its bytes are left out
    }
    assert_eq!(outcomes, [true, false, true]);
    drop((walk, files));
    let asked = |snapshot: &Snapshot| (snapshot.requests, snapshot.sessions);
    let after = counters(server.key);
    assert_eq!(asked(&after), (before.requests + 1, 1), "one fork for all of it");
    assert!(after.questions - before.questions >= 60, "{after:?}");
    assert_eq!(reply_queues().len(), 1);
    drop(client);
    assert_eq!(reply_queues(), []);
    server.wait_until_idle();
    let client = Client::builder().key(server.key).sessions(false).build();
    assert!(fetch(&client) && fetch(&client));
    assert_eq!(counters(server.key).requests, after.requests + 2);
    server.stop();
}

#[in_own_namespace]
fn a_file_can_be_asked_for_before_others_that_were_asked_for() {
    let (server, _folder, client) = site(&[]);
    let mut files = client.open_all(["/file", "/none", "/file"]);
    files.next_file().unwrap().unwrap().read_exact(&mut [0; 10]).unwrap();
    files.ask_next("/file");
    for is_there in [true, false, true] {
        let mut bytes = Vec::new();
        let file = files.next_file().unwrap();
        assert_eq!(file.is_ok_and(|file| file.read_to_end(&mut bytes).is_ok()), is_there);
        assert!(bytes == noise(if is_there { 50_000 } else { 0 }));
    }
    assert!(files.next_file().is_none());
    drop((files, client));
    server.stop();
}

#[in_own_namespace]
fn transfers_at_once_and_threads_have_sessions_of_their_own() {
    let (server, _folder, client) = site(&[]);
    let before = counters(server.key).requests;
    let [mut one, mut other] = [(); 2].map(|()| client.open("/file").unwrap());
    let (mut begin, mut rest) = (vec![0; 1000], Vec::new());
    one.read_exact(&mut begin).unwrap();
    other.read_to_end(&mut rest).unwrap();
    one.read_to_end(&mut begin).unwrap();
    assert!(begin == noise(50_000) && rest == begin);
    drop((one, other));
    assert!(fetch(&client));
    assert_eq!(counters(server.key).requests, before + 2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert!(fetch(&client))));
        }
    });
    let after = counters(server.key).requests;
    // A thread that finds the pool locked makes a session rather than wait.
    assert!(after < before + 100, "{}", after - before);
    drop(client);
    assert_eq!(reply_queues(), []);
    server.stop();
}

#[in_own_namespace]
fn a_forked_child_leaves_its_parents_sessions_alone() {
    let (server, _folder, client) = site(&[]);
    let mut under_way = client.open("/file").unwrap();
    let mut bytes = vec![0; 1000];
    under_way.read_exact(&mut bytes).unwrap();
    assert!(fetch(&client), "one session is idle, and one is not");
    let mut own = Some((client.clone(), client.open("/file").unwrap()));
    let queues = reply_queues();
    let asked = counters(server.key).requests;
    let child = fork_child(|| {
        let ok = fetch(&client) && fetch(&client);
        drop(own.take()); // the child's copy
        exit_now(i32::from(!ok))
    });
    let child = child.unwrap();
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    wait_until("what the child itself left is gone", || reply_queues() == queues);
    assert_eq!(counters(server.key).requests, asked + 1, "the child had one of its own");
    under_way.read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(50_000) && fetch(&client));
    assert_eq!(counters(server.key).requests, asked + 1);
    assert!(own.is_some_and(|(_, transfer)| read(transfer) == noise(50_000)));
    drop((client, under_way));
    server.stop();
}

#[in_own_namespace]
fn a_client_may_be_dropped_when_its_thread_has_ended() {
    thread_local! {
        static KEPT: RefCell<Option<Client>> = const { RefCell::new(None) };
    }
    let (server, _folder, client) = site(&[]);
    let thread = thread::spawn(|| {
        KEPT.with_borrow_mut(|kept| {
            let client = kept.insert(client);
            assert!(fetch(client));
            let start = Instant::now();
            let pause = Duration::from_millis(1100); // then it looks at the lease
            wait_until("the pause is over", || start.elapsed() > pause);
            assert!(fetch(client));
        });
    });
    thread.join().unwrap();
    assert_eq!(reply_queues(), []);
    server.stop();
}

#[in_own_namespace]
fn idle_sessions_are_replaced_unnoticed() {
    let (server, folder, client) = site(&["--idle-timeout", "4s"]);
    assert!(fetch(&client));
    let before = counters(server.key).requests;
    wait_until("the server has ended it", || reply_queues().is_empty());
    assert!(fetch(&client));
    assert_eq!(counters(server.key).requests, before + 1);
    // Somebody removes its queue; its child is killed.
    reply_queues()[0].remove().unwrap();
    assert!(fetch(&client));
    for child in server.children() {
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
        wait_until("the server has noticed", || state_of(child).is_none());
    }
    assert!(fetch(&client));
    drop((client, folder));
    server.stop();
}

#[in_own_namespace]
fn the_session_of_a_replaced_server_is_not_used() {
    for freezes in [false, true] {
        let (mut first, _folder, client) = site(&[]);
        assert!(fetch(&client));
        let children = first.process().children();
        if freezes {
            assert!(children.iter().all(|child| child.freeze())); // the queue stays for now
        }
        first.running().kill();
        let folder = public_folder();
        fs::write(folder.path().join("file"), "of another root").unwrap();
        let root = folder.path().to_str().unwrap();
        let next = Server::start_on(first.key, &["--reap-interval", "1h", "--root", root]);
        assert_eq!(read(client.open("/file").unwrap()), b"of another root");
        wait_until("they end", || {
            children.iter().filter(|child| child.signal(Signal::SIGCONT)).count() == 0
        });
        drop(client);
        assert_eq!(reply_queues(), []);
        first.make_way();
        next.stop();
    }
}
