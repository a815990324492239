//! Signals to idle and busy servers and clients: they end in time and leave nothing, whatever
//! signals their starter blocked or ignored, which stay so across execve(2). Clients whose child
//! dies, stalls or is slow.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mqfs::counters::FailureReason;
use mqfs::wire::{Failure, LEASE_TYPE, MAX_REPLY, REPLY_QUEUE_MODE};
use nix::errno::Errno;
use nix::sys::signal::Signal::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGPWR, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGXCPU,
};
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use sysv_ipc::{MessageBuffer, Mode, OwnedQueue, Queue, Select};
use tempfile::TempDir;

use crate::support::session::{Part, RawSession, fetch, fill};
use crate::support::*;

#[in_own_namespace]
fn an_idle_server_leaves_nothing_after_any_signal() {
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGVTALRM] {
        let mut server = Server::start::<&str>(&[]);
        server.signal(signal);
        assert!(server.running().wait().success(), "{signal}");
        assert_eq!(queue_of(server.key), None, "{signal}");
        assert!(sysv_ipc::Lock::open(server.key).is_err(), "{signal}");
    }
}

#[in_own_namespace]
fn a_server_that_stops_lets_its_children_finish() {
    for signal in [SIGINT, SIGTERM, SIGQUIT, SIGHUP] {
        for to_its_group in [false, true] {
            let (mut server, _folder, content) = serve(&[], |mut server| {
                server.process_group(0);
                server
            });
            let client = stuck_client(&server, &["/file"]);
            match to_its_group {
                true => killpg(Pid::from_raw(server.pid()), signal).unwrap(),
                false => server.signal(signal),
            }
            wait_until("its queue is gone", || queue_of(server.key).is_none());
            assert_eq!(server.children().len(), 1, "{signal}: the child goes on");
            assert!(client.finish().success() == content, "{signal}");
            assert!(server.running().wait().success(), "{signal}");
        }
    }
}

#[in_own_namespace]
fn a_client_leaves_no_queue_after_any_signal_during_a_transfer() {
    let (server, _folder, _) = serve_quietly(4 << 20, &[]);
    for signal in
        [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU, SIGPWR, SIGIO]
    {
        let mut client = stuck_client(&server, &["/file"]);
        client.signal(signal);
        client.wait(); // reading what it wrote would let it go on
        let client = client.finish();
        assert_eq!(client.code(), Some(130), "{signal}");
        assert_eq!(client.stderr, "mqfs-client: interrupted\n", "{signal}");
        assert_eq!(reply_queues(), [], "{signal}");
        server.wait_until_idle();
        let log = server.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(r#"outcome="client gone""#), "{signal}: {log}");
    }
}

#[in_own_namespace]
fn a_client_leaves_no_queue_if_the_same_ctrl_c_ends_its_reader() {
    let (server, _folder, _) = serve_quietly(4 << 20, &[]);
    for _ in 0..20 {
        let mut client = stuck_client(&server, &["/file"]);
        client.signal(SIGINT);
        drop(client.child().stdout.take());
        // Whichever it notices first: the signal or the closed pipe.
        assert!(matches!(client.wait().code(), Some(130 | 141)));
        assert_eq!(reply_queues(), []);
    }
}

#[in_own_namespace]
fn a_server_that_stops_ends_its_sessions_after_the_answer_in_hand() {
    let timeouts = ["--drain-timeout", "1h", "--idle-timeout", "1h"];
    let (mut server, _folder, content) = serve_quietly(4 << 20, &timeouts);
    let requests = queue_of(server.key).unwrap();
    let mut idle: Vec<_> = (0..3).map(|_| RawSession::idle(requests)).collect();
    let mut working = RawSession::start(requests, &fetch("/file"));
    wait_until("it waits for room", || is_full(*working.queue));
    server.signal(SIGTERM);
    idle.iter_mut().for_each(|session| assert_eq!(session.next_part(), Part::Farewell(1)));
    assert!(working.answer().unwrap().bytes == content);
    assert!(matches!(working.next_part(), Part::Farewell(1) | Part::Gone));
    assert!(server.running().wait().success());
}

#[in_own_namespace]
fn a_client_of_a_dead_server_is_told_at_once_also_if_it_waits_to_send_its_request() {
    let (mut server, _folder, _) = serve_quietly(4 << 20, &[]);
    server.freeze();
    let requests = queue_of(server.key).unwrap();
    fill(requests);
    let client = Running::start(server.client().arg("/file").stderr(Stdio::piped()));
    wait_until("it has its queue", || !reply_queues().is_empty());
    let start = Instant::now();
    server.running().kill();
    let expected = format!("mqfs-client: no server: the one under key {} is dead ", server.key);
    for client in [client.finish(), run(server.client().arg("/file"))] {
        assert_eq!(client.code(), Some(2), "{}", client.stderr);
        assert!(client.stderr.starts_with(&expected), "{}", client.stderr);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
}

/// The same command, started by a program that holds back signals: env(1).
fn held_back(option: &str, command: &Command) -> Command {
    by(&["env", option], command)
}

/// A server of a `/file` of 4 MiB, started by another command.
fn serve(arguments: &[&str], by: impl FnOnce(Command) -> Command) -> (Server, TempDir, Vec<u8>) {
    let (folder, file, key) = (tempfile::tempdir().unwrap(), noise(4 << 20), unique_key());
    fs::write(folder.path().join("file"), &file).unwrap();
    let mut command = server_of(key);
    command.arg("--root").arg(folder.path()).args(arguments);
    (Server::start_as(key, &mut by(command)), folder, file)
}

#[as_root_in_own_namespace]
fn sigterm_ends_a_program_whose_output_blocks_also_if_its_starter_held_it_back() {
    for option in ["--default-signal=TERM", "--block-signal", "--ignore-signal=TERM"] {
        let (server, _folder, _) =
            serve(&["--reap-interval", "1h"], |server| held_back(option, &server));
        server.fetch("/file"); // it removes orphans before its first request
        server.wait_until_idle();
        server.freeze();
        let orphan = leased(dead_owner());
        let (_unread, mut full) = std::io::pipe().unwrap();
        full.write_all(&vec![b'\n'; 65_536]).unwrap(); // the capacity of a pipe: pipe(7)
        for (command, code) in [
            (with(server.client(), &["/file"]), Some(130)),
            (stat_of(server.key), None),
            (with(stat_of(server.key), &["--watch", "1h"]), Some(130)),
            (program("mqfs-reap"), None),
            (with(program("mqfs-reap"), &["--watch", "1h"]), Some(0)),
        ] {
            let is_client = command.get_program().to_string_lossy().ends_with("mqfs-client");
            let _orphan = leased(dead_owner()); // a reaper has something to say
            let mut command = held_back(option, &command);
            let mut running = Running::start(command.stdout(full.try_clone().unwrap()));
            wait_until("it waits", || match is_client {
                true => reply_queues().len() > 2 && state_of(running.pid()) == Some('S'),
                false => waits_for_room(running.pid()),
            });
            running.signal(SIGTERM);
            assert_eq!(running.wait().code(), code, "{command:?}");
        }
        assert!(!exists(*orphan));
        server.signal(SIGCONT);
    }
}

fn waits_for_room(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().any(|task| {
        let at = fs::read_to_string(task.path().join("wchan"));
        at.is_ok_and(|at| at.contains("pipe_write"))
    })
}

#[in_own_namespace]
fn children_end_and_make_way_whatever_the_starter_of_the_server_held_back() {
    for option in ["--block-signal", "--ignore-signal=CHLD,ALRM,USR1,PIPE,XFSZ"] {
        let (server, _folder, _) =
            serve(&["--max-children", "1"], |server| held_back(option, &server));
        let client = stuck_client(&server, &["/file"]);
        client.signal(SIGKILL);
        wait_until("its child notices", || reply_queues().is_empty());
        assert_eq!(state_of(client.pid()), Some('Z'), "nobody has waited for the client");
        server.wait_until_idle();
        assert!(server.log().contains("client dead"), "{}", server.log());
        let _session = RawSession::idle(queue_of(server.key).unwrap());
        assert_eq!(server.fetch("/file").len(), 4 << 20, "the session makes way");
        server.wait_until_idle();
    }
}

#[in_own_namespace]
fn what_nohup_and_shells_ignore_ends_neither_server_nor_client() {
    let option = "--ignore-signal=HUP,INT,QUIT";
    let (server, _folder, file) = serve(&[], |server| held_back(option, &server));
    for signal in [SIGHUP, SIGINT, SIGQUIT] {
        let client = Running::piped(&mut held_back(option, server.client().arg("/file")));
        wait_until("a child is at work", || !reply_queues().is_empty());
        client.signal(signal);
        server.signal(signal);
        assert!(client.finish().success() == file);
    }
}

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
    server.only_child().signal(SIGKILL);
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
}

#[in_own_namespace]
fn a_stopping_server_tells_the_clients_of_the_children_that_it_kills() {
    let (server, _folder, _) = serve_quietly(1 << 20, &[]);
    let client = ByHand::ask(&server, true);
    wait_until("it sends", || client.queue.status().unwrap().messages > 2);
    server.only_child().freeze();
    // Twice: the first does not make the server wait.
    server.signal(SIGTERM);
    wait_until("it stops", || queue_of(server.key).is_none());
    assert_eq!(client.receive().0, 2, "a DATA");
    server.signal(SIGTERM);
    client.assert_told();
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
    let counted = counters(server.key);
    let failed: Vec<_> = counted.failures().filter(|(_, count)| *count > 0).collect();
    assert_eq!(failed, [(FailureReason::Stalled, 2)], "not as children that died as well");
}

#[in_own_namespace]
fn a_stop_does_not_wait_for_clients_of_dead_children() {
    let (server, _folder, _) = serve_quietly(1 << 20, &["--drain-timeout", "1h"]);
    let client = ByHand::ask(&server, true);
    kill_the_child(&server, *client.queue);
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
    in_dead_process(|| {
        for _ in 0..3 {
            sleep(Duration::from_millis(300)); // a pause between two checks of the watch
            assert!(times_out());
        }
    });
}
