//! Signals to idle and busy servers and clients: they end in time and leave nothing.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sysv_ipc::MessageBuffer;
use tempfile::TempDir;

use crate::support::{
    Running, Server, Stuck, children_of, in_own_namespace, noise, queue_of, reply_queues, run,
    serve_file, state_of, stuck_client, stuck_client_without_retries, wait_until,
};

/// A server with one file of 1 MiB, and the file's content.
fn server_with_file(arguments: &[&str]) -> (Server, TempDir, Vec<u8>) {
    let served = serve_file(1 << 20, arguments);
    served.0.fetch("/file"); // it removes orphans before its first request
    served.0.wait_until_idle();
    served
}

#[test]
fn an_idle_server_leaves_nothing_after_any_signal() {
    in_own_namespace(|| {
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
    });
}

#[test]
fn a_server_that_stops_lets_its_children_finish() {
    in_own_namespace(|| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let (mut server, _folder, content) = server_with_file(&[]);
            let client = stuck_client(&server, "/file");
            server.signal(signal);
            wait_until("its queue is gone", || queue_of(server.key).is_none());
            assert_eq!(children_of(server.pid()).len(), 1, "{signal}: the child goes on");
            assert!(client.finish().success() == content, "{signal}");
            assert!(server.running().wait().success(), "{signal}");
        }
    });
}

#[test]
fn a_server_kills_its_children_after_the_drain_timeout() {
    in_own_namespace(|| {
        let (mut server, _folder, _) = server_with_file(&["--drain-timeout", "300ms"]);
        let client = stuck_client_without_retries(&server, "/file");
        let child = children_of(server.pid())[0];
        server.signal(Signal::SIGTERM);
        assert!(server.running().wait().success());
        assert_eq!(state_of(child), None);
        let client = client.finish();
        assert_eq!(client.code(), Some(1), "{}", client.stderr);
        assert!(client.stderr.contains("incomplete"), "{}", client.stderr);
    });
}

#[test]
fn a_second_signal_ends_the_drain() {
    in_own_namespace(|| {
        let (mut server, _folder, _) = server_with_file(&["--drain-timeout", "1h"]);
        let client = stuck_client_without_retries(&server, "/file");
        server.signal(Signal::SIGTERM);
        wait_until("the drain has begun", || queue_of(server.key).is_none());
        server.signal(Signal::SIGTERM);
        assert!(server.running().wait().success());
        assert_eq!(client.finish().code(), Some(1));
    });
}

#[test]
fn a_stopped_child_does_not_delay_the_servers_end() {
    in_own_namespace(|| {
        let (mut server, _folder, _) = server_with_file(&["--drain-timeout", "100ms"]);
        let _client = stuck_client(&server, "/file");
        let child = children_of(server.pid())[0];
        kill(Pid::from_raw(child), Signal::SIGSTOP).unwrap();
        wait_until("it is stopped", || state_of(child) == Some('T'));
        server.signal(Signal::SIGTERM);
        assert!(server.running().wait().success());
        assert_eq!(state_of(child), None);
    });
}

#[test]
fn a_client_leaves_no_queue_after_any_signal_during_a_transfer() {
    in_own_namespace(|| {
        let (server, _folder, _) = server_with_file(&[]);
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
            wait_until("the child noticed", || children_of(server.pid()).is_empty());
            let log = server.log();
            let last = log.lines().last().unwrap_or_default();
            assert!(last.contains(r#"outcome="client gone""#), "{signal}: {log}");
        }
        server.stop();
    });
}

#[test]
fn a_client_leaves_no_queue_if_the_same_ctrl_c_ends_its_reader() {
    in_own_namespace(|| {
        let (server, _folder, _) = server_with_file(&[]);
        for _ in 0..20 {
            let mut client = stuck_client(&server, "/file");
            client.signal(Signal::SIGINT);
            drop(client.child().stdout.take());
            // Whichever it notices first: the signal or the closed pipe.
            assert!(matches!(client.wait().code(), Some(130 | 141)));
            assert_eq!(reply_queues(), []);
        }
        server.stop();
    });
}

#[test]
fn a_client_that_waits_for_an_answer_leaves_no_queue_after_a_signal() {
    in_own_namespace(|| {
        let (server, _folder, _) = server_with_file(&[]);
        server.freeze(); // takes no request, answers none
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut command = server.client();
            let client = Running::start(command.arg("/file").stderr(Stdio::piped()));
            wait_until("it waits in msgrcv", || {
                !reply_queues().is_empty() && state_of(client.pid()) == Some('S')
            });
            client.signal(signal);
            assert_eq!(client.finish().code(), Some(130), "{signal}");
            assert_eq!(reply_queues(), [], "{signal}");
        }
        server.signal(Signal::SIGCONT);
        server.stop();
    });
}

#[test]
fn ctrl_c_to_a_whole_process_group_leaves_nothing() {
    in_own_namespace(|| {
        // As in a shell script: Ctrl-C sends SIGINT to server and clients, which form one group.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), noise(1 << 20)).unwrap();
        let key = crate::support::unique_key();
        let mut command = crate::support::program("mqfs-server");
        command.args(["-k", &key.to_string(), "--root"]).arg(folder.path()).process_group(0);
        let mut server = Server::start_as(key, &mut command);
        let mut command = server.client();
        command.arg("/file").process_group(server.pid());
        let client = Stuck::start(&mut command).client;
        let children = children_of(server.pid());
        killpg(Pid::from_raw(server.pid()), Signal::SIGINT).unwrap();
        assert_eq!(client.finish_unread().code(), Some(130));
        assert!(server.running().wait().success());
        assert!(children.iter().all(|&child| state_of(child).is_none()));
    });
}

#[test]
fn a_client_under_nohup_survives_sighup() {
    in_own_namespace(|| {
        let (server, _folder, content) = server_with_file(&[]);
        let mut command = std::process::Command::new("nohup");
        command.arg(server.client().get_program()).args(server.client().get_args()).arg("/file");
        let client = Running::start(
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        wait_until("a child is at work", || !reply_queues().is_empty());
        client.signal(Signal::SIGHUP);
        assert!(client.finish().success() == content);
        server.stop();
    });
}

#[test]
fn at_max_children_requests_wait_in_the_queue() {
    in_own_namespace(|| {
        let (server, _folder, content) = server_with_file(&["--max-children", "2"]);
        let first = stuck_client(&server, "/file");
        let second = stuck_client(&server, "/file");
        let mut command = server.client();
        let third = Running::start(command.arg("/file").stdout(Stdio::piped()));
        let requests = queue_of(server.key).unwrap();
        wait_until("the third request waits", || requests.status().unwrap().messages == 1);
        assert_eq!(children_of(server.pid()).len(), 2);
        assert!(first.finish().success() == content);
        assert!(third.finish().success() == content, "now there is room");
        drop(second);
        server.stop();
    });
}

#[test]
fn a_client_whose_child_was_killed_fails_soon() {
    in_own_namespace(|| {
        let (server, _folder, _) = server_with_file(&[]);
        let client = stuck_client_without_retries(&server, "/file");
        client.freeze();
        kill(Pid::from_raw(children_of(server.pid())[0]), Signal::SIGKILL).unwrap();
        wait_until("the child is gone", || children_of(server.pid()).is_empty());
        client.signal(Signal::SIGCONT);
        let start = Instant::now();
        let client = client.finish();
        assert_eq!(client.code(), Some(1), "{}", client.stderr);
        assert!(client.stderr.contains("the server's child died on the way"), "{}", client.stderr);
        assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
        wait_until("told", || server.log().contains("a child was killed"));
        server.stop();
    });
}

#[test]
fn a_client_of_a_server_that_died_before_it_answered_fails_soon() {
    in_own_namespace(|| {
        let (mut server, _folder, _) = server_with_file(&[]);
        server.freeze();
        let mut command = server.client();
        let client =
            Running::start(command.args(["--retries", "0", "/file"]).stderr(Stdio::piped()));
        wait_until("it has asked", || {
            queue_of(server.key).unwrap().status().unwrap().messages == 1
        });
        server.signal(Signal::SIGKILL);
        server.running().wait();
        let start = Instant::now();
        let client = client.finish();
        assert_eq!(client.code(), Some(1), "{}", client.stderr);
        assert!(client.stderr.contains("the server died before it answered"), "{}", client.stderr);
        assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
    });
}

#[test]
fn a_client_of_a_server_that_is_dead_is_told_at_once() {
    in_own_namespace(|| {
        let (mut server, _folder, _) = server_with_file(&[]);
        server.signal(Signal::SIGKILL);
        server.running().wait();
        let alone = run(server.client().arg("/file"));
        assert_eq!(alone.code(), Some(2));
        let expected = format!("mqfs-client: no server: the one under key {} is dead ", server.key);
        assert!(alone.stderr.starts_with(&expected), "{}", alone.stderr);
    });
}

#[test]
fn a_client_that_waits_to_send_its_request_notices_the_servers_death() {
    in_own_namespace(|| {
        let (mut server, _folder, _) = server_with_file(&[]);
        server.freeze();
        let requests = queue_of(server.key).unwrap();
        for size in [1000, 10, 1] {
            let filler = MessageBuffer::with_text(NORMAL_PRIORITY, &vec![0xff; size]);
            while requests.try_send(&filler).is_ok() {}
        }
        let mut command = server.client();
        let client = Running::start(command.arg("/file").stderr(Stdio::piped()));
        wait_until("it has its queue", || !reply_queues().is_empty());
        let start = Instant::now();
        server.signal(Signal::SIGKILL);
        server.running().wait();
        let client = client.finish();
        assert_eq!(client.code(), Some(2), "{}", client.stderr);
        assert!(client.stderr.contains("is dead"), "{}", client.stderr);
        assert!(start.elapsed() < Duration::from_secs(10), "long before --timeout");
    });
}

#[test]
fn every_transfer_of_a_client_has_its_timeout() {
    in_own_namespace(|| {
        let (server, _folder, _) = server_with_file(&[]);
        server.freeze();
        let timeout = Duration::from_millis(300);
        let client = mqfs::Client::builder().key(server.key).timeout(timeout).build();
        let (sender, results) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for _ in 0..3 {
                // Long enough for a pause between two checks of the watch.
                std::thread::sleep(Duration::from_millis(300));
                let timed_out = client.open("/f").unwrap_err().kind() == mqfs::ErrorKind::TimedOut;
                let _ = sender.send(timed_out);
            }
        });
        for _ in 0..3 {
            assert_eq!(results.recv_timeout(Duration::from_secs(10)), Ok(true));
        }
        server.signal(Signal::SIGCONT);
        server.stop();
    });
}

#[test]
fn a_client_of_a_silent_server_ends_at_its_timeout() {
    in_own_namespace(|| {
        let (server, _folder, _) = server_with_file(&[]);
        server.freeze();
        let start = Instant::now();
        let client = run(server.client().args(["--timeout", "500ms", "/file"]));
        assert_eq!(client.code(), Some(1));
        assert_eq!(client.stderr, "mqfs-client: /file: timed out: nothing came for 500ms\n");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(reply_queues(), []);
        server.signal(Signal::SIGCONT);
        server.stop();
    });
}
