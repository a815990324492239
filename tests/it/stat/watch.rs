//! `mqfs-stat --watch`: on a terminal, in a pipe, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::Signal;
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer, Queue};

use super::{others_queue, server, wait_for};
use crate::support::{self, Running, in_own_namespace, program, stat_of, unique_key, wait_until};

/// `mqfs-stat --watch` on a terminal that controls it: Ctrl-C sends SIGINT.
struct Terminal {
    running: Running,
    terminal: support::Terminal,
}

impl Terminal {
    #[track_caller]
    fn start(key: Key, lines: u16, columns: u16) -> Self {
        let terminal = support::Terminal::new(lines, columns);
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program("mqfs-stat").get_program());
        command.args(["--watch", "100ms", &key.to_string()]);
        command.env_remove("MQFS_KEY").env("TERM", "xterm");
        let side = || Stdio::from(terminal.inside.try_clone().unwrap());
        let running = Running::start(command.stdin(side()).stdout(side()).stderr(side()));
        Self { running, terminal }
    }

    /// The frames that were written.
    fn frames(&self) -> Vec<String> {
        let all = self.terminal.written();
        all.split("\x1b[H").skip(1).map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_for_frames(&self, count: usize) {
        wait_until("it is drawn again", || self.frames().len() >= count);
    }
}

#[in_own_namespace]
fn watch_redraws_in_place_until_a_signal_and_ends_with_status_130() {
    let key = unique_key();
    let _queue = others_queue(key);
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGHUP), Some(Signal::SIGQUIT)] {
        let mut terminal = Terminal::start(key, 24, 80);
        terminal.wait_for_frames(3);
        match signal {
            None => terminal.terminal.keyboard.write_all(&[3]).unwrap(),
            Some(signal) => terminal.running.signal(signal),
        }
        assert_eq!(terminal.running.wait().code(), Some(130), "{signal:?}");
        let frames = terminal.frames();
        assert!(frames.iter().all(|frame| frame.contains("QUEUE ")), "{frames:?}");
        let first = &frames[0];
        assert!(first.contains("every 100ms; Ctrl-C ends it"), "{first:?}");
        // No hidden cursor and no alternate screen, which a killed program would leave behind.
        assert!(!first.contains("\x1b[?"), "{first:?}");
    }
}

#[in_own_namespace]
fn watch_shows_only_what_fits_the_terminal() {
    let key = unique_key();
    let _queue = others_queue(key);
    let mut terminal = Terminal::start(key, 6, 12);
    terminal.wait_for_frames(3);
    terminal.running.signal(Signal::SIGTERM);
    terminal.running.wait();
    let frame = &terminal.frames()[1];
    let lines: Vec<_> = frame.split("\r\n").map(|line| line.replace("\x1b[K", "")).collect();
    assert_eq!(lines.len(), 6, "{frame:?}");
    assert!(lines[4].starts_with("... and "), "{frame:?}");
    assert_eq!(lines[5], "\x1b[J", "the cursor's line");
    assert!(lines[..5].iter().all(|line| line.chars().count() <= 12), "{frame:?}");
}

#[in_own_namespace]
fn watch_in_a_pipe_prints_consecutive_tables_with_rates() {
    let (server, _folder) = server();
    server.fetch("/small");
    wait_for(server.key, "complete", 1);
    let mut running =
        Running::start(stat_of(server.key).args(["--watch", "100ms"]).stdout(Stdio::piped()));
    let mut output = BufReader::new(running.child().stdout.take().unwrap());
    let (mut tables, mut rates) = (0, 0);
    for line in output.by_ref().lines() {
        let line = line.unwrap();
        assert!(!line.contains('\x1b'), "{line:?}");
        tables += usize::from(line.starts_with("QUEUE "));
        rates += usize::from(line.trim_start().starts_with("requests") && line.ends_with("/s"));
        if rates == 2 {
            running.signal(Signal::SIGTERM);
            break;
        }
    }
    assert!(tables >= 3, "no rates in the first");
    assert_eq!(running.wait().code(), Some(130));
    server.stop();
}

#[in_own_namespace]
fn rates_are_differences_of_counters() {
    let (server, _folder) = server();
    let mut command = stat_of(server.key);
    command.args(["--json", "--watch", "1s"]).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
    let output = BufReader::new(running.child().stdout.take().unwrap());
    let mut objects = output.lines().map(|line| {
        let object: Value = serde_json::from_str(&line.unwrap()).unwrap();
        object
    });
    let first = objects.next().unwrap();
    assert_eq!(first["rates"], Value::Null);
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
    let mut command = stat_of(key);
    command.args(["--json", "--watch", "100ms"]).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
    let output = BufReader::new(running.child().stdout.take().unwrap());
    let mut lines = output.lines().map(|line| line.unwrap());
    let mut wait_for = |messages: Value| loop {
        let object: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        if object["queue"]["messages"] == messages {
            break;
        }
    };
    wait_for(Value::Null);
    let queue = others_queue(key);
    wait_for(1.into());
    Queue::open(key).unwrap().try_send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"")).unwrap();
    wait_for(2.into());
    drop(queue);
    wait_for(Value::Null);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(130));
}
