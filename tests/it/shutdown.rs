//! Signals to idle and busy servers and clients: they end in time and leave nothing.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sysv_ipc::MessageBuffer;
use tempfile::TempDir;

use crate::support::session::{Part, RawSession, fetch};
use crate::support::{
    Running, Server, in_own_namespace, is_full, noise, program, queue_of, reply_queues, run,
    serve_quietly, stuck_client, unique_key, wait_until,
};

/// A server of a file of 4 MiB, in a process group of its own.
fn server_in_own_group() -> (Server, TempDir, Vec<u8>) {
    let (folder, content, key) = (tempfile::tempdir().unwrap(), noise(4 << 20), unique_key());
    fs::write(folder.path().join("file"), &content).unwrap();
    let mut command = program("mqfs-server");
    command.args(["-k", &key.to_string(), "--root"]).arg(folder.path()).process_group(0);
    (Server::start_as(key, &mut command), folder, content)
}

#[in_own_namespace]
fn an_idle_server_leaves_nothing_after_any_signal() {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGVTALRM,
    ] {
        let mut server = Server::start::<&str>(&[]);
        server.signal(signal);
        assert!(server.running().wait().success(), "{signal}");
        assert_eq!(queue_of(server.key), None, "{signal}");
        assert!(sysv_ipc::Lock::open(server.key).is_err(), "{signal}");
    }
}

#[in_own_namespace]
fn a_server_that_stops_lets_its_children_finish() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP] {
        for to_its_group in [false, true] {
            let (mut server, folder, content) = server_in_own_group();
            let client = stuck_client(&server, "/file");
            match to_its_group {
                true => killpg(Pid::from_raw(server.pid()), signal).unwrap(),
                false => server.signal(signal),
            }
            wait_until("its queue is gone", || queue_of(server.key).is_none());
            assert_eq!(server.children().len(), 1, "{signal}: the child goes on");
            assert!(client.finish().success() == content, "{signal}");
            assert!(server.running().wait().success(), "{signal}");
            drop(folder);
        }
    }
}

#[in_own_namespace]
fn a_client_leaves_no_queue_after_any_signal_during_a_transfer() {
    let (server, _folder, _) = serve_quietly(4 << 20, &[]);
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGALRM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGXCPU,
        Signal::SIGPWR,
        Signal::SIGIO,
    ] {
        let client = stuck_client(&server, "/file");
        client.signal(signal);
        let client = client.finish_unread();
        assert_eq!(client.code(), Some(130), "{signal}");
        assert_eq!(client.stderr, "mqfs-client: interrupted\n", "{signal}");
        assert_eq!(reply_queues(), [], "{signal}");
        server.wait_until_idle();
        let log = server.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(r#"outcome="client gone""#), "{signal}: {log}");
    }
    server.stop();
}

#[in_own_namespace]
fn a_client_leaves_no_queue_if_the_same_ctrl_c_ends_its_reader() {
    let (server, _folder, _) = serve_quietly(4 << 20, &[]);
    for _ in 0..20 {
        let mut client = stuck_client(&server, "/file");
        client.signal(Signal::SIGINT);
        drop(client.child().stdout.take());
        // Whichever it notices first: the signal or the closed pipe.
        assert!(matches!(client.wait().code(), Some(130 | 141)));
        assert_eq!(reply_queues(), []);
    }
    server.stop();
}

#[in_own_namespace]
fn a_server_that_stops_ends_its_sessions_after_the_answer_in_hand() {
    let timeouts = ["--drain-timeout", "1h", "--idle-timeout", "1h"];
    let (mut server, _folder, content) = serve_quietly(4 << 20, &timeouts);
    let requests = queue_of(server.key).unwrap();
    let mut idle: Vec<_> = (0..3).map(|_| RawSession::idle(requests)).collect();
    let mut working = RawSession::start(requests, &fetch("/file"));
    wait_until("it waits for room", || is_full(*working.queue));
    server.signal(Signal::SIGTERM);
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
    for size in [1000, 10, 1] {
        let filler = MessageBuffer::with_text(NORMAL_PRIORITY, &vec![0xff; size]);
        while requests.try_send(&filler).is_ok() {}
    }
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
