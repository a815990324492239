//! `mqfs-stat --watch`: on a terminal, in a pipe, and how it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mqfs::wire::NORMAL_PRIORITY;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{Termios, tcgetattr};
use serde_json::Value;
use sysv_ipc::{Key, MessageBuffer, Queue};

use super::{others_queue, server, wait_for};
use crate::support::{
    DEADLINE, Running, in_own_namespace, program, stat_of, state_of, unique_key, wait_until,
};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// `mqfs-stat --watch` on a terminal of its own.
struct Terminal {
    running: Running,
    keyboard: File,
    terminal: File,
    before: Termios,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    #[track_caller]
    fn start(key: Key, lines: u16, columns: u16) -> Self {
        let stat = program("mqfs-stat").get_program().to_str().unwrap().to_owned();
        let this = Self::run(&[&stat, "--watch", "100ms", &key.to_string()], lines, columns);
        this.wait_for("QUEUE");
        this
    }

    /// Any command, on a terminal that controls it: keys send signals.
    #[track_caller]
    fn run(arguments: &[&str], lines: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let (keyboard, terminal) = (File::from(pty.master), File::from(pty.slave));
        let before = tcgetattr(&terminal).unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = from.read(&mut bytes)
                && count > 0
            {
                to.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(arguments).env_remove("MQFS_KEY");
        let side = || Stdio::from(terminal.try_clone().unwrap());
        let running = Running::start(command.stdin(side()).stdout(side()).stderr(side()));
        Self { running, keyboard, terminal, before, screen }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, what: &str) {
        let start = Instant::now();
        while !self.shown().contains(what) {
            assert!(start.elapsed() < DEADLINE, "{what:?} is not shown: {:?}", self.shown());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn press(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).unwrap();
    }

    /// Waits for its end: everything must be as it was.
    #[track_caller]
    fn assert_left_clean(mut self, status: i32) {
        assert_eq!(self.running.wait().code(), Some(status), "{:?}", self.shown());
        wait_until("the screen is left", || self.shown().ends_with(LEAVE));
        let shown = self.shown();
        assert!(shown.starts_with(ENTER), "{shown:?}");
        assert_eq!(shown.matches(ENTER).count(), shown.matches(LEAVE).count());
        assert_eq!(tcgetattr(&self.terminal).unwrap(), self.before);
    }
}

#[test]
fn on_a_terminal_q_ends_it_with_0_and_leaves_the_terminal_as_it_was() {
    in_own_namespace(|| {
        let key = unique_key();
        let queue = others_queue(key);
        for quit in [b'q', b'Q'] {
            let mut terminal = Terminal::start(key, 24, 80);
            terminal.press(b'x');
            terminal.wait_for("q ends it");
            terminal.press(quit);
            terminal.assert_left_clean(0);
        }
        drop(queue);
    });
}

#[test]
fn every_signal_ends_it_with_130_and_leaves_the_terminal_as_it_was() {
    in_own_namespace(|| {
        let key = unique_key();
        let _queue = others_queue(key);
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGALRM,
            Signal::SIGVTALRM,
            Signal::SIGXCPU,
        ] {
            let terminal = Terminal::start(key, 24, 80);
            terminal.running.signal(signal);
            terminal.assert_left_clean(130);
        }
    });
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_goes_on_or_is_ended() {
    in_own_namespace(|| {
        let key = unique_key();
        let _queue = others_queue(key);
        let stat = program("mqfs-stat").get_program().to_str().unwrap().to_owned();
        // A shell that lets it go on twice: in the foreground, and to end it.
        let script = format!(
            "set -m; {stat} --watch 100ms {key}; echo one; fg %1; echo two; \
             pid=$(jobs -p %1); kill %1; while kill -0 $pid; do sleep 0.05; done; \
             echo ended; stty -a"
        );
        let mut shell = Terminal::run(&["bash", "-c", &script], 24, 80);
        shell.wait_for("q ends it");
        shell.press(26);
        shell.wait_for("one\r\n");
        wait_until("it takes the screen again", || shell.shown().matches(ENTER).count() == 2);
        shell.press(26);
        shell.wait_for("ended\r\n");
        assert_eq!(shell.running.wait().code(), Some(0));
        wait_until("all is written", || shell.shown().contains("echoke"));
        let shown = shell.shown();
        assert_eq!((shown.matches(ENTER).count(), shown.matches(LEAVE).count()), (2, 2));
        let modes = shown.rsplit_once("ended\r\n").unwrap().1;
        assert!(modes.contains(" icanon ") && modes.contains(" echo "), "{modes}");
    });
}

#[test]
fn ctrl_c_ends_it_also_after_it_was_stopped_without_a_word() {
    in_own_namespace(|| {
        let key = unique_key();
        let _queue = others_queue(key);
        let mut terminal = Terminal::start(key, 24, 80);
        terminal.running.signal(Signal::SIGSTOP);
        wait_until("it stands", || state_of(terminal.running.pid()) == Some('T'));
        terminal.running.signal(Signal::SIGCONT);
        wait_until("it takes the screen again", || terminal.shown().matches(ENTER).count() == 2);
        terminal.press(3);
        terminal.assert_left_clean(130);
    });
}

#[test]
fn no_more_is_shown_than_the_terminal_has_room_for() {
    in_own_namespace(|| {
        let key = unique_key();
        let _queue = others_queue(key);
        let mut terminal = Terminal::start(key, 6, 12);
        terminal.wait_for("... and ");
        terminal.press(b'q');
        let screen = Arc::clone(&terminal.screen);
        terminal.assert_left_clean(0);
        let shown = String::from_utf8_lossy(&screen.lock().unwrap()).into_owned();
        let frame = shown.split("\x1b[H").nth(1).unwrap();
        let frame = frame.split("\x1b[?").next().unwrap();
        let lines: Vec<_> = frame.split("\r\n").map(|line| line.replace("\x1b[K", "")).collect();
        assert_eq!(lines.len(), 6, "{frame:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 12), "{frame:?}");
    });
}

#[test]
fn in_a_pipe_tables_come_one_after_the_other_with_rates() {
    in_own_namespace(|| {
        let (server, _folder) = server();
        server.fetch("/small");
        wait_for(server.key, "complete", 1);
        let mut command = stat_of(server.key);
        let mut running = Running::start(command.args(["--watch", "100ms"]).stdout(Stdio::piped()));
        let output = BufReader::new(running.child().stdout.take().unwrap());
        let (mut tables, mut rates) = (0, 0);
        for line in output.lines() {
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
    });
}

#[test]
fn rates_are_what_came_meanwhile() {
    in_own_namespace(|| {
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
    });
}

#[test]
fn a_queue_that_comes_and_goes_is_shown_as_it_does() {
    in_own_namespace(|| {
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
        Queue::open(key)
            .unwrap()
            .try_send(&MessageBuffer::with_text(NORMAL_PRIORITY, b""))
            .unwrap();
        wait_for(2.into());
        drop(queue);
        wait_for(Value::Null);
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().code(), Some(130));
    });
}

#[test]
fn it_ends_with_141_when_nobody_reads_any_more_and_by_a_signal_while_nobody_does() {
    in_own_namespace(|| {
        let key = unique_key();
        let _queue = others_queue(key);
        let mut command = stat_of(key);
        let mut running = Running::start(command.args(["--watch", "1h"]).stdout(Stdio::piped()));
        drop(running.child().stdout.take());
        assert_eq!(running.wait().code(), Some(141));

        let (reader, mut full) = std::io::pipe().unwrap();
        full.write_all(&vec![b'\n'; 65_536]).unwrap(); // the capacity of a pipe: pipe(7)
        let mut running = Running::start(stat_of(key).args(["--watch", "1h"]).stdout(full));
        wait_until("it waits", || state_of(running.pid()) == Some('S'));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().code(), Some(130));
        drop(reader);
    });
}
