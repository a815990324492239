//! `mqfs-stat`: what it shows of servers and other queues, and its exit status.

mod prometheus;
mod segment;
mod watch;

use mqfs::sys::exit_now;
use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{getpid, pause};
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, OwnedQueue};
use tempfile::TempDir;

use crate::support::session::{RawSession, fetch, list, lstat};
use crate::support::{
    Finished, Server, as_root_in_own_namespace, dead_owner, fork_child, in_own_namespace, leased,
    owner_of, program, queue_of, run, serve_file, stat_of, stuck_client_without_retries,
    unique_key, wait_until,
};

/// A server of a small file and one of 4 MiB, which removes orphans once.
fn server() -> (Server, TempDir) {
    let (server, folder, _) = serve_file(4 << 20, &["--reap-interval", "1h"]);
    (server, folder)
}

/// The output of `mqfs-stat --json`, whatever its exit status.
#[track_caller]
fn look(key: Key) -> Value {
    object(&run(stat_of(key).arg("--json")))
}

#[track_caller]
fn object(finished: &Finished) -> Value {
    serde_json::from_slice(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.stderr))
}

/// Waits until a counter has this value: a child counts after its client has everything.
#[track_caller]
fn wait_for(key: Key, counter: &str, value: u64) {
    let pointer = format!("/counters/{counter}");
    wait_until(&format!("{counter} is {value}"), || {
        look(key).pointer(&pointer).and_then(Value::as_u64) == Some(value)
    });
}

/// A queue of another program, under a key.
fn others_queue(key: Key) -> OwnedQueue {
    let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    queue.try_send(&MessageBuffer::with_text(MessageType::new(7).unwrap(), b"seven")).unwrap();
    queue
}

fn text(finished: Finished) -> String {
    String::from_utf8(finished.success()).unwrap()
}

#[in_own_namespace]
fn every_request_is_counted_by_its_outcome() {
    let (server, _folder) = server();
    for _ in 0..3 {
        server.fetch("/small");
    }
    server.fetch("/file");
    for path in ["/none", "/small/none", "/"] {
        assert_eq!(run(server.client().arg(path)).code(), Some(1));
    }
    let queue = queue_of(server.key).unwrap();
    queue.send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"no request")).unwrap();

    wait_for(server.key, "failed/not_regular", 1);
    wait_for(server.key, "refused/malformed", 1);
    wait_for(server.key, "complete", 4);
    let seen = look(server.key);
    let counters = &seen["counters"];
    assert_eq!(counters["requests"], 8);
    assert_eq!(counters["bytes_sent"], 3 * 5 + (4 << 20));
    assert_eq!(counters["failed"]["not_found"], 2);
    assert_eq!(counters["clients_gone"], 0);
    assert_eq!(counters["children_limit"], 64);
    assert_eq!(counters["queue"], queue.id().get());
    assert_eq!(counters["server_pid"], server.pid());
    let times = counters["transfer_seconds"].as_array().unwrap();
    assert_eq!(times.iter().map(|time| time["count"].as_u64().unwrap()).sum::<u64>(), 4);
    assert!(counters["transfer_seconds_sum"].as_f64().unwrap() > 0.0);
    assert_eq!(seen["counters_are_current"], true);
    assert_eq!(seen["server"], "running");
    wait_for(server.key, "children", 0);
    server.stop();
}

#[in_own_namespace]
fn each_question_of_a_session_is_counted_and_the_session_is_logged_once() {
    let (server, _folder) = server();
    let requests = queue_of(server.key).unwrap();
    let mut session = RawSession::start(requests, &fetch("/small"));
    for question in [fetch("/none"), fetch("/file"), list("/"), lstat("/small")] {
        session.ask(&question);
    }
    (0..5).for_each(|_| drop(session.answer()));
    wait_for(server.key, "sessions_idle", 1);
    let counters = &look(server.key)["counters"];
    for (name, value) in
        [("requests", 1), ("questions", 5), ("complete", 4), ("sessions", 1), ("children", 1)]
    {
        assert_eq!(counters[name], value, "{name}");
    }
    assert_eq!(counters["failed"]["not_found"], 1);
    assert!(counters["bytes_sent"].as_u64().unwrap() > 5 + (4 << 20), "{counters}");
    let table = text(run(&mut stat_of(server.key)));
    let words: Vec<_> = table.split_whitespace().collect();
    assert!(words.windows(2).any(|pair| pair == ["questions", "5"]), "{table}");
    let row = ["sessions", "1", "now,", "1", "idle"];
    assert!(words.windows(5).any(|words| words == row), "{table}");
    drop(session);
    wait_for(server.key, "sessions", 0);
    wait_for(server.key, "sessions_idle", 0);
    assert_eq!(look(server.key)["counters"]["clients_gone"], 0, "it had everything");
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("outcome=")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["questions=5 failures=1 bytes=", r#"outcome="session: the client ended it""#] {
        assert!(lines[0].contains(part), "{log}");
    }
    server.stop();
}

#[in_own_namespace]
fn active_children_lost_clients_and_dead_children_are_counted() {
    let (server, _folder) = server();
    server.wait_until_idle();
    let first = stuck_client_without_retries(&server, "/file");
    let second = stuck_client_without_retries(&server, "/file");
    wait_for(server.key, "children", 2);
    // Active transfers count as well.
    wait_until("bytes are counted", || {
        look(server.key)["counters"]["bytes_sent"].as_u64() > Some(0)
    });
    server.process().children()[0].signal(Signal::SIGKILL);
    wait_for(server.key, "failed/child_died", 1);
    drop((first, second));
    wait_for(server.key, "clients_gone", 1);
    wait_for(server.key, "children", 0);
    assert_eq!(look(server.key)["counters"]["children_peak"], 2);
    server.stop();
}

#[as_root_in_own_namespace]
fn reply_queues_are_shown_with_their_owner_and_whether_it_lives() {
    let (server, _folder) = server();
    server.wait_until_idle();
    let alive = leased(owner_of(getpid().as_raw()));
    let owner = dead_owner();
    let dead = leased(owner);
    let seen = look(server.key);
    let rows = seen["reply_queues"].as_array().unwrap();
    let of = |queue: &OwnedQueue| {
        let row = rows.iter().find(|row| row["id"] == queue.id().get()).unwrap();
        (row["pid"].clone(), row["verdict"].clone(), row["reason"].clone())
    };
    assert_eq!(rows.len(), 2);
    assert_eq!(of(&alive), (getpid().as_raw().into(), "alive".into(), "owner is running".into()));
    assert_eq!(of(&dead), (owner.pid.into(), "orphan".into(), "owner is gone".into()));
    assert_eq!(seen["namespace"]["queues"], 3);
    let table = text(run(&mut stat_of(server.key)));
    let row = table.lines().find(|line| line.contains("orphan")).unwrap();
    assert!(row.ends_with("orphan: owner is gone") && row.contains("root"), "{table}");
    assert!(table.contains("REPLY QUEUES: 2\n"), "{table}");
    server.stop();
}

#[in_own_namespace]
fn the_table_shows_queue_server_namespace_and_counters() {
    let (server, _folder) = server();
    server.fetch("/small");
    let _ = run(server.client().arg("/none"));
    wait_for(server.key, "failed/not_found", 1);
    wait_for(server.key, "complete", 1);
    let table = text(run(&mut stat_of(server.key)));
    let words: Vec<String> =
        table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        &format!("QUEUE {}", server.key),
        "mode 0711",
        "messages 0",
        "bytes 0 of 16384 (0 %)",
        &format!("server running, pid {}", server.pid()),
        "NAMESPACE",
        "COUNTERS",
        "requests 2",
        "complete 1",
        "bytes sent 5",
        "failed 1",
        "not_found 1",
        "refused 0",
        "REPLY QUEUES: 0",
    ] {
        assert!(words.iter().any(|line| line == expected), "{expected}:\n{table}");
    }
    let receiver = format!("last receiver {} (mqfs-server), ", server.pid());
    assert!(words.iter().any(|line| line.starts_with(&receiver)), "{table}");
    server.stop();
}

#[in_own_namespace]
fn any_programs_queue_is_shown_by_key_or_id() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = Key::from_path(file.path(), b'm').unwrap();
    let queue = others_queue(key);
    let stat = || program("mqfs-stat");
    let decimal = key.as_raw().cast_unsigned().to_string();
    for command in [
        stat().arg("--json").arg(key.to_string()),
        stat().arg("--json").args(["-k", &decimal]),
        stat().arg("--json").args(["--key", &key.to_string()]),
        stat().arg("--json").arg("--key-file").arg(file.path()),
        stat().arg("--json").env("MQFS_KEY", key.to_string()),
    ] {
        let finished = run(command);
        assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
        let seen = object(&finished);
        assert_eq!(seen["key"], key.to_string());
        let shown = &seen["queue"];
        assert_eq!(shown["id"], queue.id().get());
        assert_eq!((&shown["messages"], &shown["bytes"]), (&1.into(), &5.into()));
        assert_eq!(shown["last_sender"], getpid().as_raw());
        assert_eq!(shown["last_receiver"], Value::Null);
        assert_eq!((&seen["server"], &seen["counters"]), (&Value::Null, &Value::Null));
        assert_eq!(seen["reply_queues"], Value::Null);
    }
    let table = text(run(stat().arg(key.to_string())));
    assert!(table.contains("nobody yet") && !table.contains("COUNTERS"), "{table}");
}

#[in_own_namespace]
fn process_names_are_escaped_on_a_terminal() {
    let key = unique_key();
    let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    let message = MessageBuffer::with_text(NORMAL_PRIORITY, b"");
    let evil = fork_child(|| {
        prctl::set_name(c"\x1b[31m\nevil").unwrap();
        queue.try_send(&message).unwrap();
        loop {
            pause();
        }
        #[allow(unreachable_code)]
        exit_now(0)
    });
    let evil = evil.unwrap();
    wait_until("it has sent", || queue.status().unwrap().messages == 1);
    let table = text(run(&mut stat_of(key)));
    kill(evil, Signal::SIGKILL).unwrap();
    waitpid(evil, None).unwrap();
    assert!(table.contains(r"(\u{1b}[31m\nevil)"), "{table}");
    assert!(!table.contains('\x1b'), "{table}");
}
