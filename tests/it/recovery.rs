//! A server under adverse conditions: limits, full disks, signals, removed queues, killed children.
//! It goes on, and clients that wait long enough get their files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mqfs::wire::REPLY_QUEUE_MODE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sysv_ipc::{Key, Lock, OwnedQueue, Queue};
use tempfile::TempDir;

use crate::support::*;

/// A folder with 4 MiB under /file, and a server of it under a key of its own.
pub struct Place {
    pub folder: TempDir,
    pub key: Key,
    pub file: Vec<u8>,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = noise(4 << 20);
        fs::write(folder.path().join("file"), &file).unwrap();
        Self { folder, key: unique_key(), file }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = server_of(self.key);
        command.args(["--reap-interval", "1h", "--root"]).arg(self.folder.path()).args(arguments);
        command
    }

    /// A server that has removed orphans once.
    #[track_caller]
    pub fn serve(&self, arguments: &[&str]) -> Server {
        let server = Server::start_as(self.key, &mut self.command(arguments));
        self.fetch();
        server.wait_until_idle();
        server
    }

    pub fn client(&self) -> Command {
        with(client(self.key), &["/file"])
    }

    /// Fails the test unless the server serves.
    #[track_caller]
    fn fetch(&self) {
        assert!(run(&mut self.client()).success() == self.file);
    }

    fn crowd(&self, size: usize, arguments: &[&str]) -> Crowd {
        let ask = |_| {
            let client = Running::piped(self.client().args(arguments));
            thread::spawn(|| client.finish())
        };
        Crowd((0..size).map(ask).collect())
    }

    fn requests(&self) -> Queue {
        queue_of(self.key).unwrap()
    }

    fn waiting(&self) -> u64 {
        queue_of(self.key).and_then(|queue| queue.status().ok()).map_or(0, |s| s.messages)
    }
}

/// Clients, each with a thread that reads its output.
struct Crowd(Vec<JoinHandle<Finished>>);

impl Crowd {
    fn finish(self) -> Vec<Finished> {
        self.0.into_iter().map(|client| client.join().unwrap()).collect()
    }

    #[track_caller]
    fn all_get(self, file: &[u8]) {
        for client in self.finish() {
            assert_eq!(client.code(), Some(0), "{}", client.stderr);
            assert!(client.stdout == file, "{}", client.stderr);
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// A request of this process, which never reads the answer.
fn ask_and_never_read(requests: Queue) -> OwnedQueue {
    let queue = OwnedQueue::private(REPLY_QUEUE_MODE).unwrap();
    requests.send(&leased_request(*queue, requests, "/file")).unwrap();
    queue
}

#[in_own_namespace]
fn a_thousand_children_killed_at_once_leave_no_zombie_and_the_server_goes_on() {
    const CROWD: usize = 1000;
    let place = Place::new();
    let server = place.serve(&["--max-children", &CROWD.to_string()]);
    let queues: Vec<_> = (0..CROWD).map(|_| ask_and_never_read(place.requests())).collect();
    wait_until("all are at work", || server.children().len() == CROWD);
    let next = place.crowd(2, &[]);
    wait_until("there is no room for another", || place.waiting() == 1);
    server.freeze(); // so that all end before it sees one
    let children = server.children();
    for &child in &children {
        signal(child, Signal::SIGKILL);
    }
    wait_until("all are dead", || children.iter().all(|&pid| state_of(pid) == Some('Z')));
    server.signal(Signal::SIGCONT);
    next.all_get(&place.file);
    server.wait_until_idle();
    assert_eq!(server.log().matches("a child was killed").count(), CROWD);
    drop(queues);
    place.fetch();
}

#[in_own_namespace]
fn a_stop_during_transfers_ends_in_time_and_the_next_server_sends_the_rest() {
    let place = Place::new();
    let mut first = place.serve(&["--max-children", "4", "--drain-timeout", "1s"]);
    let stuck: Vec<_> = (0..4).map(|_| Stuck::start(&mut place.client())).collect();
    let waiting = place.crowd(8, &[]);
    wait_until("they wait", || place.waiting() == 7); // the server has taken one
    let children = first.children();
    first.process().children()[0].freeze();
    let start = Instant::now();
    first.signal(Signal::SIGTERM);
    // It removes its queue first, then gives back its lock.
    wait_until("it gives back its key", || {
        Lock::open(place.key).and_then(Lock::is_held) != Ok(true)
    });
    let next = place.serve(&[]);
    assert!(first.running().wait().success());
    assert!(start.elapsed() >= Duration::from_secs(1), "no earlier, since nobody reads");
    assert!(start.elapsed() < Duration::from_secs(5), "and not much later");
    assert!(children.iter().all(|&child| state_of(child).is_none()), "all are ended");
    first.make_way();
    waiting.all_get(&place.file);
    for stuck in stuck {
        assert!(stuck.finish() == place.file);
    }
    next.stop();
}

#[in_own_namespace]
fn a_stopped_server_later_serves_the_clients_that_still_wait() {
    let place = Place::new();
    let server = place.serve(&[]);
    server.freeze();
    let patient = place.crowd(1, &[]);
    wait_until("it has asked", || place.waiting() == 1);
    let impatient = run(place.client().args(["--timeout", "500ms"]));
    assert_eq!(impatient.code(), Some(1));
    assert_eq!(impatient.stderr, "mqfs-client: /file: timed out: nothing came for 500ms\n");
    assert_eq!(place.waiting(), 2);
    server.signal(Signal::SIGCONT);
    patient.all_get(&place.file);
    wait_until("told", || server.log().contains(r#"reason="the reply queue does not exist""#));
}

#[in_own_namespace]
fn a_child_stopped_beyond_the_stall_timeout_goes_on_with_a_reading_client() {
    let place = Place::new();
    let server = place.serve(&["--stall-timeout", "500ms"]);
    let stuck = Stuck::start(place.client().args(["--retries", "0"]));
    let child = server.children()[0];
    signal(child, Signal::SIGSTOP);
    wait_until("it is stopped", || state_of(child) == Some('T'));
    let queue = stuck.queue;
    let client = thread::spawn(|| stuck.finish());
    wait_until("all is read", || queue.status().unwrap().messages == 1);
    let_pass(Duration::from_millis(1500));
    signal(child, Signal::SIGCONT);
    assert!(client.join().unwrap() == place.file, "{}", server.log());
}

/// Stops and continues like the cgroup freezer or `docker pause`.
#[in_own_namespace]
fn server_and_clients_frozen_beyond_every_timeout_go_on_afterwards() {
    let place = Place::new();
    let server = place.serve(&["--stall-timeout", "500ms"]);
    let big = noise(64 << 20);
    fs::write(place.folder.path().join("file"), &big).unwrap();
    let client = Running::piped(place.client().args(["--timeout", "1s"]));
    wait_until("it is under way", || !server.children().is_empty());
    let all = [server.pid(), client.pid(), server.children()[0]];
    let client = thread::spawn(|| client.finish());
    for &pid in &all {
        signal(pid, Signal::SIGSTOP);
    }
    wait_until("all stand", || all.iter().all(|&pid| state_of(pid) == Some('T')));
    let_pass(Duration::from_millis(1500));
    for &pid in &all {
        signal(pid, Signal::SIGCONT);
    }
    let finished = client.join().unwrap();
    assert!(finished.stdout == big, "{}\n{}", finished.stderr, server.log());
}

#[track_caller]
fn ipcrm(arguments: &[&str]) {
    run(Command::new("ipcrm").args(arguments)).success();
}

#[in_own_namespace]
fn a_repeatedly_removed_request_queue_loses_no_file() {
    let place = Place::new();
    let server = place.serve(&[]);
    let crowd = place.crowd(8, &["/file"; 15]);
    let mut removed = 0;
    while removed < 20 {
        if let Some(queue) = queue_of(place.key).filter(|queue| queue.remove().is_ok()) {
            removed += 1;
            wait_until("there is a new one", || {
                queue_of(place.key).is_some_and(|new| new != queue)
            });
        }
    }
    crowd.all_get(&place.file.repeat(16));
    let told = server.log().matches("the request queue was removed; made a new one").count();
    assert_eq!(told, 20, "{}", server.log());
}

#[as_root_in_own_namespace]
fn a_request_queue_is_recreated_once_a_queue_is_free() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
    let limit = "/proc/sys/kernel/msgmni";
    let normal = fs::read(limit).unwrap();
    fs::write(limit, "0").unwrap();
    let lost = place.requests();
    ipcrm(&["-q", &lost.id().to_string()]);
    wait_until("told", || server.log().contains("no room for a new one"));
    assert!(server.log().contains("mqfs-reap"), "{}", server.log());
    assert!(under_way.finish() == place.file);
    let patient = place.crowd(1, &[]);
    let impatient = run(place.client().args(["--timeout", "500ms"]));
    assert_eq!(impatient.code(), Some(2));
    let expected = format!("mqfs-client: no server: the one under key {} has no", place.key);
    assert!(impatient.stderr.starts_with(&expected), "{}", impatient.stderr);
    fs::write(limit, &normal).unwrap();
    patient.all_get(&place.file);

    fs::write(limit, "0").unwrap();
    ipcrm(&["-q", &place.requests().id().to_string()]);
    wait_until("told", || server.log().matches("no room for a new one").count() == 2);
}

#[as_root_in_own_namespace]
fn after_ipcrm_all_transfers_go_on_and_the_server_recovers_queue_and_lock() {
    let place = Place::new();
    let _server = place.serve(&[]);
    let stuck: Vec<_> = (0..4).map(|_| Stuck::start(&mut place.client())).collect();
    let lost = place.requests();
    ipcrm(&["--all=sem"]);
    ipcrm(&["--all=msg"]);
    wait_until("there is a new one", || queue_of(place.key).is_some_and(|new| new != lost));
    for stuck in stuck {
        assert!(stuck.finish() == place.file);
    }
    place.fetch();
    assert_eq!(Lock::open(place.key).unwrap().is_held(), Ok(true));
}

/// Sets a limit of a running server with `prlimit`.
#[track_caller]
fn limit(server: &Server, what: &str) {
    run(Command::new("prlimit").args(["--pid", &server.pid().to_string(), what])).success();
}

/// It must not serve unconfined.
#[in_own_namespace]
fn a_server_with_too_few_descriptors_to_confine_itself_does_not_start() {
    let place = Place::new();
    let server = place.command(&["--quiet"]);
    let why = "mqfs-server: landlock_create_ruleset: EMFILE: Too many open files\n";
    fails(&mut by(&["prlimit", "--nofile=4:4"], &server), 2, why);
    assert_eq!(queue_of(place.key), None);
}

#[in_own_namespace]
fn a_server_without_descriptors_tells_its_clients_and_recovers() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
    limit(&server, "--nofile=3:");
    for client in place.crowd(8, &[]).finish() {
        assert_eq!(client.code(), Some(1));
        assert_eq!(client.stderr, "mqfs-client: /file: Too many open files\n");
    }
    assert!(under_way.finish() == place.file, "what is open stays open");
    limit(&server, "--nofile=100:");
    place.fetch();
}

#[in_own_namespace]
fn a_server_without_memory_survives_and_recovers() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
    limit(&server, "--as=1:"); // less than it has: not a byte more
    for client in place.crowd(16, &[]).finish() {
        // Either its memory suffices, or the child dies.
        assert!(matches!(client.code(), Some(0 | 1)), "{}", client.stderr);
        assert_eq!(client.code() == Some(0), client.stdout == place.file, "{}", client.stderr);
    }
    assert!(under_way.finish() == place.file);
    limit(&server, "--as=unlimited:");
    place.fetch();
}

#[in_own_namespace]
fn a_log_that_cannot_be_written_delays_nobody_and_goes_on_when_it_can() {
    let place = Place::new();
    let full_pipe = || {
        let (unread, mut pipe) = std::io::pipe().unwrap();
        pipe.write_all(&[b'\n'; 60_000]).unwrap(); // nearly its capacity: pipe(7)
        (Stdio::from(pipe), Some(unread))
    };
    let short = File::create(place.folder.path().join("log")).unwrap();
    for ((log, mut unread), format) in [
        (full_pipe(), "text"),
        (full_pipe(), "json"),
        ((Stdio::from(std::io::pipe().unwrap().1), None), "text"),
        ((full().into(), None), "text"),
        ((short.into(), None), "text"),
    ] {
        let server = place.command(&["--max-children", "2", "--log-format", format]);
        let mut command = by(&["prlimit", "--fsize=100:100"], &server);
        let mut server = Running::start(command.stdout(Stdio::null()).stderr(log));
        drop(command); // it has the log open too
        wait_until("it can be asked", || queue_of(place.key).is_some());
        // A line for which the pipe has not enough room.
        let unknown = "\u{7f}".repeat(3000);
        assert_eq!(run(client(place.key).arg(unknown)).code(), Some(1));
        place.crowd(4, &["/file"; 4]).all_get(&place.file.repeat(5));
        let _stuck = Stuck::start(&mut place.client());
        let stuck = Stuck::start(&mut place.client());
        for child in children_of(server.pid()) {
            signal(child, Signal::SIGKILL); // which is logged by the parent
        }
        assert!(stuck.finish() == place.file);
        if let Some(pipe) = &mut unread {
            pipe.read_exact(&mut [0; 60_000]).unwrap();
        }
        place.fetch();
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success());
        let told = unread.map(|pipe| std::io::read_to_string(pipe).unwrap());
        assert!(told.is_none_or(|log| log.contains("/file")));
    }
}
