//! Interrupted transfers.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use sysv_ipc::{Key, Queue};
use tempfile::TempDir;

use crate::support::{
    Running, Server, Stuck, as_root_in_own_pid_namespace, children_of, in_own_namespace, noise,
    owner_of, queue_of, reply_queues, sleeper, unique_key, wait_until,
};

/// A folder with 4 MiB under /file, and a key for its servers.
struct Files {
    folder: TempDir,
    key: Key,
    file: Vec<u8>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = noise(4 << 20);
        fs::write(folder.path().join("file"), &file).unwrap();
        Self { folder, key: unique_key(), file }
    }

    fn serve(&self) -> Server {
        let root = self.folder.path().to_str().unwrap();
        Server::start_on(self.key, &["--reap-interval", "1h", "--root", root])
    }

    fn replace(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join("new"), content).unwrap();
        fs::rename(self.folder.path().join("new"), self.folder.path().join(name)).unwrap();
    }

    fn client(&self) -> Command {
        let mut command = crate::support::client(self.key);
        command.arg("/file").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Kills a server and all its children.
fn kill_all(mut server: Server) {
    server.kill_with_children();
    server.make_way(); // its queue is for the next one
}

fn kill_children(server: &Server) {
    for child in children_of(server.pid()) {
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
}

#[test]
fn a_transfer_whose_child_is_killed_resumes_where_it_was() {
    in_own_namespace(|| {
        let files = Files::new();
        let server = files.serve();
        server.fetch("/file"); // it removes orphans first
        let stuck = Stuck::start(files.client().arg("--verbose"));
        kill_children(&server);
        let finished = stuck.client.finish();
        assert!(finished.stdout == files.file, "{}", finished.stderr);
        let checksum = crc32fast::hash(&files.file);
        let length = files.file.len();
        let how = "in 2 parts, verified";
        let expected = format!("{length} bytes, {how} (CRC-32 {checksum:08x})");
        assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
        wait_until("told", || sent(&server).len() == 2);
        let rest = *sent(&server).last().unwrap();
        assert!(rest < files.file.len() as u64, "{rest} bytes were sent again");
        server.stop();
    });
}

/// The bytes of all completed transfers, from the log.
fn sent(server: &Server) -> Vec<u64> {
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("outcome=\"sent\""));
    lines
        .map(|line| line.split_once(" bytes=").unwrap().1.split(' ').next().unwrap())
        .map(|bytes| bytes.parse().unwrap())
        .collect()
}

/// The reply queue of a new transfer, not among those `before`, once the client has read from it.
fn new_transfer(before: &[Queue]) -> Queue {
    let mut found = None;
    wait_until("a transfer is under way", || {
        let read = |queue: Queue| queue.status().is_ok_and(|s| s.last_receiver.is_some());
        found = reply_queues().into_iter().find(|&queue| !before.contains(&queue) && read(queue));
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_request_that_was_lost_with_its_server_is_sent_to_the_next_one() {
    in_own_namespace(|| {
        let files = Files::new();
        let mut server = files.serve();
        server.freeze();
        let client = Running::start(&mut files.client());
        wait_until("it has asked", || queue_of(files.key).unwrap().status().unwrap().messages == 1);
        server.signal(Signal::SIGKILL);
        server.running().wait();
        server.make_way();
        let next = files.serve(); // before the client has any doubt
        let start = Instant::now();
        assert!(client.finish().success() == files.file);
        assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
        next.stop();
    });
}

#[test]
fn a_replaced_file_is_fetched_again_or_is_an_error() {
    in_own_namespace(|| {
        let files = Files::new();
        let server = files.serve();
        server.fetch("/file");
        let copy = files.folder.path().join("copy");
        let to_stdout = Stuck::start(&mut files.client());
        // Large enough to be stopped in the middle.
        fs::File::create(files.folder.path().join("sparse")).unwrap().set_len(1 << 32).unwrap();
        let mut command = crate::support::client(files.key);
        let before = reply_queues();
        let to_file = Running::start(
            command
                .arg("-o")
                .arg(&copy)
                .arg("/sparse")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        new_transfer(&before);
        to_file.freeze();
        assert_eq!(reply_queues().len(), 2, "it was too fast");
        let other = noise((4 << 20) + 1);
        files.replace("file", &other);
        files.replace("sparse", &other);
        kill_children(&server);
        let broken = to_stdout.client.finish();
        assert_eq!(broken.code(), Some(1));
        let expected =
            "mqfs-client: /file: incomplete: the file changed while the server was away\n";
        assert_eq!(broken.stderr, expected);
        to_file.signal(Signal::SIGCONT);
        to_file.finish().success();
        assert!(fs::read(copy).unwrap() == other);
        server.stop();
    });
}

#[test]
fn a_file_changed_with_its_old_mtime_is_detected() {
    in_own_namespace(|| {
        let files = Files::new();
        let server = files.serve();
        server.fetch("/file");
        let stuck = Stuck::start(&mut files.client());
        let file = fs::OpenOptions::new().write(true).open(files.folder.path().join("file"));
        let file = file.unwrap();
        let mtime = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"other", 0).unwrap();
        file.set_modified(mtime).unwrap();
        kill_children(&server);
        let broken = stuck.client.finish();
        assert_eq!(broken.code(), Some(1), "{}", broken.stderr);
        let expected =
            "mqfs-client: /file: incomplete: the file changed while the server was away\n";
        assert_eq!(broken.stderr, expected);
        server.stop();
    });
}

#[test]
fn when_no_server_comes_back_the_transfer_fails_at_its_timeout() {
    in_own_namespace(|| {
        let files = Files::new();
        let server = files.serve();
        let stuck = Stuck::start(files.client().args(["--timeout", "1s"]));
        kill_all(server);
        let failed = stuck.client.finish();
        assert_eq!(failed.code(), Some(1));
        let expected = "mqfs-client: /file: incomplete: the server's child died on the way\n";
        assert_eq!(failed.stderr, expected);
        files.serve().stop();
    });
}

#[test]
fn a_removed_reply_queue_is_replaced() {
    in_own_namespace(|| {
        let files = Files::new();
        let server = files.serve();
        let stuck = Stuck::start(&mut files.client());
        stuck.queue.remove().unwrap();
        assert!(stuck.finish() == files.file);
        server.stop();
    });
}

#[test]
fn the_next_server_serves_while_the_old_one_drains() {
    in_own_namespace(|| {
        let files = Files::new();
        let mut first = files.serve();
        let stuck = Stuck::start(&mut files.client());
        first.signal(Signal::SIGTERM);
        wait_until("it stops", || queue_of(files.key).is_none());
        let next = files.serve();
        assert!(next.fetch("/file") == files.file);
        assert!(stuck.finish() == files.file);
        assert!(first.running().wait().success());
        first.make_way(); // the key is the next one's
        next.stop();
    });
}

#[test]
fn a_dead_child_is_not_confused_with_a_process_that_reuses_its_pid() {
    as_root_in_own_pid_namespace(
        "resume::a_dead_child_is_not_confused_with_a_process_that_reuses_its_pid",
        || {
            let files = Files::new();
            let server = files.serve();
            server.fetch("/file");
            wait_until("it is idle", || children_of(server.pid()).is_empty());
            let mut stuck = Stuck::start(&mut files.client());
            stuck.wait_for_its_output(); // by then it has looked at who sends
            let child = children_of(server.pid())[0];
            let born = owner_of(child).start_time;
            // All at once, so that nobody informs the client.
            kill_all(server);
            waitpid(Pid::from_raw(child), None).unwrap(); // we are process 1 here
            let mut other = None;
            wait_until("the pid is another's", || {
                fs::write("/proc/sys/kernel/ns_last_pid", (child - 1).to_string()).unwrap();
                let process = sleeper();
                // Start times count hundredths of a second; let one pass.
                let found = process.pid() == child && owner_of(child).start_time != born;
                other = Some(process);
                found
            });
            let next = files.serve();
            assert!(stuck.finish() == files.file);
            next.stop();
        },
    );
}
