//! `mqfs-stat --watch`: on a terminal, in a pipe, and how it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::Signal;
use nix::unistd::getpid;
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer};

use super::{others_queue, server};
use crate::support::{
    Running, Terminal, by, in_own_namespace, leased, owner_of, stat_of, unique_key, wait_until,
};

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
    let mut command = stat_of(key);
    command.args(["--json", "--watch", every]).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
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

#[in_own_namespace]
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
    let at = |text: &str| frame.find(text).unwrap_or_else(|| panic!("{text}: {frame}"));
    let first = format!("\n {:>3} ", moving.id());
    assert!(at("server running") < at("requests") && at("requests") < at("REPLY QUEUES: 31"));
    assert!(at("REPLY QUEUES: 31") < at(&first) && at(&first) < at("lines more"), "{frame}");
    server.stop();
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
    server.stop();
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
    server.stop();
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
