//! `mqfs-client`: output, where it is written, and errors. The sessions that a library's user never
//! sees: they are shared, replaced and removed.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mqfs::counters::Snapshot;
use mqfs::{Client, Transfer};
use nix::sys::signal::Signal;
use sysv_ipc::{Mode, OwnedQueue};
use tempfile::TempDir;

use crate::support::*;

#[in_own_namespace]
fn several_files_are_concatenated_like_cat() {
    let (server, folder) = serve_folder(&[]);
    fs::write(folder.path().join("a"), "first\n").unwrap();
    fs::write(folder.path().join("b"), "second\n").unwrap();
    let both = run(server.client().args(["/a", "b", "/missing", "/a"]));
    assert_eq!(both.stdout, b"first\nsecond\nfirst\n", "what can be had is written");
    assert_eq!(both.code(), Some(1));
    assert_eq!(both.stderr, "mqfs-client: /missing: No such file or directory\n");
    wait_until("told", || server.log().contains(" questions=4 failures=1 bytes=19 "));
    let quiet = run(server.client().args(["-q", "/missing"]));
    assert_eq!((quiet.code(), &*quiet.stderr), (Some(1), ""));
}

#[in_own_namespace]
fn an_output_file_appears_complete_or_not_at_all() {
    let (server, _folder, file) = serve_file(100_000, &[]);
    let here = tempfile::tempdir().unwrap();
    let target = here.path().join("target");
    let fetch = |paths: &[&str]| run(server.client().arg("-o").arg(&target).args(paths)).code();

    assert_eq!(fetch(&["/missing"]), Some(1));
    assert_eq!(names_in(here.path()), [""; 0], "nothing appears");
    assert_eq!(fetch(&["/file"]), Some(0));
    assert!(fs::read(&target).unwrap() == file);

    fs::write(&target, "old").unwrap();
    set_mode(&target, 0o640);
    assert_eq!(fetch(&["/file", "/missing"]), Some(1));
    assert_eq!(fs::read(&target).unwrap(), b"old", "nothing is clobbered");
    assert_eq!(fetch(&["/file", "/file"]), Some(0));
    assert_eq!(fs::read(&target).unwrap().len(), 200_000);
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(names_in(here.path()), ["target"]);
}

#[as_root_in_own_namespace]
fn a_killed_client_leaves_no_temporary_file() {
    let (server, _folder, _) = serve_file(4 << 20, &[]);
    let here = tempfile::tempdir().unwrap();
    let hide_proc = "mount -t tmpfs none /proc"; // then a file has a temporary name
    for (signal, prepare) in
        [(Signal::SIGTERM, "true"), (Signal::SIGKILL, "true"), (Signal::SIGTERM, hide_proc)]
    {
        server.freeze(); // so that it is still at work
        let mut client = with(server.client(), &["/file", "-o"]);
        let mut client = after_mounting(prepare, client.arg(here.path().join("target")));
        let mut client = Running::piped(&mut client);
        wait_until("it has asked", || !reply_queues().is_empty());
        assert_eq!(names_in(here.path()).len(), usize::from(prepare == hide_proc));
        client.signal(signal);
        client.wait();
        server.signal(Signal::SIGCONT);
        assert_eq!(names_in(here.path()), [""; 0], "{signal}");
        for queue in reply_queues() {
            queue.remove().unwrap(); // what SIGKILL leaves
        }
    }
}

#[in_own_namespace]
fn without_a_server_a_client_ends_with_status_2_at_once() {
    let start = Instant::now();
    let key = unique_key();
    let alone = run(client(key).arg("/etc/hostname"));
    assert_eq!(alone.code(), Some(2));
    let expected = format!("mqfs-client: no server: nothing is under key {key} ");
    assert!(alone.stderr.starts_with(&expected), "{}", alone.stderr);
    assert_eq!(alone.stderr.lines().count(), 1);
    assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
}

#[in_own_namespace]
fn any_path_that_linux_has_works() {
    let (server, folder) = serve_folder(&[]);
    // 4,095 bytes: folders with names of 255 bytes, and a file.
    let mut long = Vec::new();
    while long.len() + 256 < 4095 {
        long.extend_from_slice(&[b"/".as_slice(), &[b'd'; 255]].concat());
    }
    long.push(b'/');
    long.resize(4095, b'f');
    for name in [
        b"/with space".to_vec(),
        b"/with\nnewline".to_vec(),
        b"/not\xff\xfeutf-8".to_vec(),
        "/größe".as_bytes().to_vec(),
        long,
    ] {
        create_below(folder.path(), &name);
        assert_eq!(server.fetch(OsString::from_vec(name.clone())), name);
    }
}

/// Makes a file whose content is its name. It makes one folder at a time, because the whole path
/// may be too long for system calls.
fn create_below(folder: &Path, name: &[u8]) {
    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};
    let parts: Vec<_> = name.split(|&byte| byte == b'/').skip(1).collect();
    let (file, folders) = parts.split_last().unwrap();
    let mut at = open(folder, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    for part in folders {
        let _ = mkdirat(&at, *part, Mode::S_IRWXU);
        at = openat(&at, *part, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    let file = openat(&at, *file, OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRUSR).unwrap();
    std::io::Write::write_all(&mut File::from(file), name).unwrap();
}

#[as_root_in_own_namespace]
fn a_client_without_a_free_queue_names_the_remedy_and_the_server_goes_on() {
    let (server, _folder, file) = serve_file(7, &[]);
    fs::write("/proc/sys/kernel/msgmni", "3").unwrap();
    let taken: Vec<_> = (0..2).map(|_| OwnedQueue::private(Mode::new(0o600)).unwrap()).collect();
    let told = "mqfs-client: no queue left for the reply: 3 of 3 are in use \
                (mqfs-reap removes orphaned ones; raising kernel.msgmni makes room)\n";
    fails(server.client().arg("/file"), 2, told);
    drop(taken);
    assert_eq!(server.fetch("/file"), file);
}

#[in_own_namespace]
fn a_removed_reply_queue_is_replaced_or_is_an_incomplete_transfer() {
    let (server, _folder, file) = serve_file(4 << 20, &[]);
    let stuck = Stuck::start(server.client().arg("/file"));
    stuck.queue.remove().unwrap();
    assert!(stuck.finish() == file);
    let client = stuck_client(&server, &["--retries", "0", "/file"]);
    for queue in reply_queues() {
        queue.remove().unwrap();
    }
    let client = client.finish();
    assert_eq!(client.code(), Some(1));
    let expected = "mqfs-client: /file: incomplete: the reply queue was removed\n";
    assert_eq!(client.stderr, expected);
}

#[in_own_namespace]
fn a_transfer_reads_like_a_file_and_fails_like_one() {
    use std::io::{ErrorKind, Read};
    let (server, _folder, file) = serve_file(50_000, &[]);
    let client = mqfs::Client::new(server.key);
    let mut content = Vec::new();
    let mut transfer = client.open("/file").unwrap();
    assert_eq!(transfer.metadata().unwrap().len(), 50_000);
    transfer.read_to_end(&mut content).unwrap();
    assert!(content == file);
    assert!(transfer.is_verified() && transfer.received() == 50_000);
    drop(transfer);

    let missing = client.open("/missing").unwrap_err();
    assert_eq!(missing.kind(), mqfs::ErrorKind::NotFound);
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let missing = std::io::Error::from(missing);
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.downcast::<mqfs::Error>().is_ok());
    let unfinished = client.open("/file").unwrap();
    drop(unfinished);
    assert_eq!(reply_queues(), [], "dropping a transfer removes its queue");
    server.stop();
    assert_eq!(client.open("/file").unwrap_err().kind(), mqfs::ErrorKind::NoServer);
}

#[in_own_namespace]
fn cancelling_a_client_leaves_others_of_the_same_builder_alone() {
    let (server, _folder, _) = serve_file(50_000, &[]);
    let builder = mqfs::Client::builder().key(server.key);
    let (one, other) = (builder.build(), builder.build());
    one.canceller().cancel();
    assert_eq!(one.open("/file").unwrap_err().kind(), mqfs::ErrorKind::Cancelled);
    assert_eq!(one.clone().open("/file").unwrap_err().kind(), mqfs::ErrorKind::Cancelled);
    assert_eq!(other.open("/file").unwrap().metadata().unwrap().len(), 50_000);
}

/// A server of `/file`, which has removed orphans, and a client that has asked nothing.
fn site(arguments: &[&str]) -> (Server, TempDir, Client) {
    let (server, folder, _) = serve_quietly(50_000, arguments);
    let client = Client::new(server.key);
    (server, folder, client)
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
}

#[in_own_namespace]
fn a_file_can_be_asked_for_before_others_that_were_asked_for() {
    let (_server, _folder, client) = site(&[]);
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
    in_dead_process(|| {
        assert!(fetch(&client) && fetch(&client));
        drop(own.take()); // the child's copy
    });
    wait_until("what the child itself left is gone", || reply_queues() == queues);
    assert_eq!(counters(server.key).requests, asked + 1, "the child had one of its own");
    under_way.read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(50_000) && fetch(&client));
    assert_eq!(counters(server.key).requests, asked + 1);
    assert!(own.is_some_and(|(_, transfer)| read(transfer) == noise(50_000)));
}

#[in_own_namespace]
fn a_client_may_be_dropped_when_its_thread_has_ended() {
    thread_local! {
        static KEPT: RefCell<Option<Client>> = const { RefCell::new(None) };
    }
    let (_server, _folder, client) = site(&[]);
    let thread = thread::spawn(|| {
        KEPT.with_borrow_mut(|kept| {
            let client = kept.insert(client);
            assert!(fetch(client));
            let_pass(Duration::from_millis(1100)); // then it looks at the lease
            assert!(fetch(client));
        });
    });
    thread.join().unwrap();
    assert_eq!(reply_queues(), []);
}

#[in_own_namespace]
fn idle_sessions_are_replaced_unnoticed() {
    let (server, _folder, client) = site(&["--idle-timeout", "4s"]);
    assert!(fetch(&client));
    let before = counters(server.key).requests;
    wait_until("the server has ended it", || reply_queues().is_empty());
    assert!(fetch(&client));
    assert_eq!(counters(server.key).requests, before + 1);
    // Somebody removes its queue; its child is killed.
    reply_queues()[0].remove().unwrap();
    assert!(fetch(&client));
    assert!(server.kill_children() > 0);
    server.wait_until_idle(); // it has noticed
    assert!(fetch(&client));
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
