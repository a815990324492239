//! `mqfs-stat`: what it shows of servers and other queues, its exit status, and `--watch` on a
//! terminal and in a pipe.

mod segment;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::getpid;
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer, MessageType, Mode, OwnedQueue};
use tempfile::TempDir;

use crate::support::session::{RawSession, fetch, list, lstat};
use crate::support::*;

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

fn others_queue(key: Key) -> OwnedQueue {
    let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    queue.try_send(&MessageBuffer::with_text(MessageType::new(7).unwrap(), b"seven")).unwrap();
    queue
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
    assert!(counters["transfer_seconds_sum"].as_f64().unwrap() > 0.0);
    assert_eq!(seen["counters_are_current"], true);
    assert_eq!(seen["server"], "running");
    wait_for(server.key, "children", 0);
}

#[in_own_namespace]
fn each_question_of_a_session_is_counted() {
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
    drop(session);
    wait_for(server.key, "sessions", 0);
    wait_for(server.key, "sessions_idle", 0);
    assert_eq!(look(server.key)["counters"]["clients_gone"], 0, "it had everything");
}

#[in_own_namespace]
fn active_children_lost_clients_and_dead_children_are_counted() {
    let (server, _folder) = server();
    server.wait_until_idle();
    let first = stuck_client(&server, &["--retries", "0", "/file"]);
    let second = stuck_client(&server, &["--retries", "0", "/file"]);
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
}

#[as_root_in_own_namespace]
fn reply_queues_are_shown_with_their_owner_and_whether_it_lives() {
    let (server, _folder) = server();
    server.fetch("/small");
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
    let table = text(&mut stat_of(server.key));
    let row = table.lines().find(|line| line.contains("orphan")).unwrap();
    assert!(row.ends_with("orphan: owner is gone") && row.contains("root"), "{table}");
    assert!(table.contains("REPLY QUEUES: 2\n"), "{table}");
    let pid = server.pid();
    assert!(table.contains(&format!(", server running, pid {pid}\n")), "{table}");
    assert!(table.contains(&format!("{pid} (mqfs-server), ")), "{table}");
    fits_any_terminal(&mut stat_of(server.key), &table);
    let mut reap = program("mqfs-reap");
    let table = text(reap.arg("--dry-run"));
    fits_any_terminal(&mut reap, &table);
}

/// A table is cut to the width of a terminal, never in a pipe, and needs no escape sequence.
#[track_caller]
fn fits_any_terminal(command: &mut Command, in_a_pipe: &str) {
    assert!(!in_a_pipe.contains('…'), "{in_a_pipe}");
    for columns in [20, 48, 80] {
        let terminal = Terminal::new(24, columns);
        command.stdout(terminal.inside.try_clone().unwrap());
        let mut running = Running::start(command.env("TERM", "dumb"));
        assert!(running.wait().success());
        let shown = terminal.close();
        let is_whole = |line: &str| line.chars().count() <= columns.into();
        assert!(shown.lines().all(is_whole) && !shown.contains('\x1b'), "{columns}:\n{shown}");
        assert_eq!(shown.lines().count(), in_a_pipe.lines().count(), "{columns}:\n{shown}");
        assert!(columns < 80 || shown.contains("orphan: owner is gone"), "{columns}:\n{shown}");
    }
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
        stat().arg("--json").args(["--id", &queue.id().to_string()]),
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
    let table = text(stat().arg(key.to_string()));
    assert!(table.contains("nobody yet") && !table.contains("COUNTERS"), "{table}");

    let private = others_queue(Key::PRIVATE);
    let before = listed("msg");
    let by_id = || run(stat().arg("--json").args(["--id", &private.id().to_string()]));
    let seen = object(&by_id());
    assert_eq!((&seen["queue"]["messages"], &seen["counters"]), (&1.into(), &Value::Null));
    assert_eq!(listed("msg"), before, "it looks and makes nothing");
    private.remove().unwrap();
    let gone = by_id();
    let told = format!("mqfs-stat: no queue with id {}\n", private.id());
    assert_eq!((gone.code(), gone.stderr), (Some(2), told));
}

#[in_own_namespace]
fn process_names_are_escaped_on_a_terminal() {
    let key = unique_key();
    let queue = OwnedQueue::create(key, Mode::new(0o600)).unwrap();
    let message = MessageBuffer::with_text(NORMAL_PRIORITY, b"");
    let evil = fork_child(|| {
        prctl::set_name(c"\x1b[31m\nevil").unwrap();
        queue.try_send(&message).unwrap();
        wait_for_ever()
    });
    let evil = evil.unwrap();
    wait_until("it has sent", || queue.status().unwrap().messages == 1);
    let table = text(&mut stat_of(key));
    kill(evil, Signal::SIGKILL).unwrap();
    waitpid(evil, None).unwrap();
    assert!(table.contains(r"(\u{1b}[31m\nevil)"), "{table}");
    assert!(!table.contains('\x1b'), "{table}");
}

/// `mqfs-stat --watch` on a terminal that controls it: Ctrl-C sends SIGINT.
#[track_caller]
fn start(terminal: &Terminal, kind: &str, key: Key) -> Running {
    let mut command = by(&["setsid", "--ctty"], stat_of(key).args(["--watch", "100ms"]));
    let side = || Stdio::from(terminal.inside.try_clone().unwrap());
    Running::start(command.env("TERM", kind).stdin(side()).stdout(side()).stderr(side()))
}

/// The frames that were drawn until the third.
#[track_caller]
fn three_frames(terminal: &Terminal) -> Vec<String> {
    let frames =
        || -> Vec<_> { terminal.written().split("\x1b[H").skip(1).map(str::to_owned).collect() };
    wait_until("it is drawn again", || frames().len() >= 3);
    frames()
}

/// What `mqfs-stat --json --watch` prints.
fn objects(key: Key, every: &str) -> (Running, impl Iterator<Item = Value>) {
    let mut running = Running::piped(stat_of(key).args(["--json", "--watch", every]));
    let output = BufReader::new(running.child().stdout.take().unwrap());
    (running, output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()))
}

#[in_own_namespace]
fn watch_redraws_in_place_until_a_signal_and_ends_with_status_130() {
    let key = unique_key();
    let _queue = others_queue(key);
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGHUP), Some(Signal::SIGQUIT)] {
        let mut terminal = Terminal::new(24, 80);
        let mut running = start(&terminal, "xterm", key);
        let frames = three_frames(&terminal);
        match signal {
            None => terminal.keyboard.write_all(&[3]).unwrap(),
            Some(signal) => running.signal(signal),
        }
        assert_eq!(running.wait().code(), Some(130), "{signal:?}");
        assert!(frames.iter().all(|frame| frame.contains("QUEUE ")), "{frames:?}");
        let first = &frames[0];
        assert!(first.contains("every 100ms; Ctrl-C ends it"), "{first:?}");
        // No hidden cursor and no alternate screen, which a killed program would leave behind.
        assert!(!first.contains("\x1b[?"), "{first:?}");
    }
}

#[as_root_in_own_namespace]
fn watch_shows_first_what_moves() {
    let (server, _folder) = server();
    let idle: Vec<_> = (0..30).map(|_| leased(owner_of(getpid().as_raw()))).collect();
    let last_use = || idle[0].status().unwrap().sent_at;
    let moving = leased(owner_of(getpid().as_raw()));
    wait_until("a second has passed", || {
        moving.try_send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"")).unwrap();
        moving.status().unwrap().sent_at > last_use()
    });
    let frame_of = |lines: u16, columns: u16| {
        let terminal = Terminal::new(lines, columns);
        let mut running = start(&terminal, "xterm", server.key);
        let frame = three_frames(&terminal).swap_remove(1);
        running.signal(Signal::SIGTERM);
        running.wait();
        let shown: Vec<_> = frame.split("\r\n").map(|line| line.replace("\x1b[K", "")).collect();
        assert!(shown.len() == usize::from(lines) && frame.ends_with("\x1b[J"), "{frame:?}");
        let fits = |line: &String| line.chars().count() <= columns.into();
        assert!(shown.iter().all(fits), "{frame:?}");
        frame
    };
    assert!(frame_of(6, 16).contains("\n... and "));
    let frame = frame_of(24, 80);
    let (id, mut lines) = (moving.id().to_string(), frame.lines());
    for text in ["server running", "requests", "REPLY QUEUES: 31"] {
        assert!(lines.any(|line| line.contains(text)), "{text}: {frame}");
    }
    assert!(lines.any(|line| line.split_whitespace().next() == Some(&id)), "{id}: {frame}");
    assert!(lines.any(|line| line.contains("lines more")), "{frame}");
}

#[in_own_namespace]
fn watch_on_a_dumb_terminal_prints_consecutive_tables_with_rates() {
    let (server, _folder) = server();
    let terminal = Terminal::new(24, 80);
    let mut running = start(&terminal, "dumb", server.key);
    let is_rate = |line: &&str| line.trim_start().starts_with("requests") && line.ends_with("/s");
    wait_until("it is printed", || terminal.written().lines().filter(is_rate).count() >= 2);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(130));
    assert!(!terminal.close().contains('\x1b'));
}

#[in_own_namespace]
fn rates_are_differences_of_counters() {
    let (server, _folder) = server();
    let (mut running, mut objects) = objects(server.key, "1s");
    assert_eq!(objects.next().unwrap()["rates"], Value::Null);
    for _ in 0..5 {
        server.fetch("/small");
    }
    let mut seen = 0.0;
    while seen < 2.0 {
        let rates = objects.next().unwrap()["rates"].clone();
        assert!(rates["failed"] == 0.0, "{rates}");
        seen += rates["requests"].as_f64().unwrap(); // a second each, or more
    }
    assert!(seen < 5.1, "{seen}");
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().code(), Some(130));
}

#[in_own_namespace]
fn watch_shows_a_queue_that_appears_and_goes() {
    let key = unique_key();
    let (_running, mut objects) = objects(key, "100ms");
    let mut wait_for = |count: Value| objects.find(|seen| seen["queue"]["messages"] == count);
    wait_for(Value::Null);
    let queue = others_queue(key);
    wait_for(1.into());
    queue.try_send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"")).unwrap();
    wait_for(2.into());
    drop(queue);
    wait_for(Value::Null);
}
