//! What a transfer shows on a terminal, and what never reaches it.

use std::fs::{self};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::termios::{FlowArg, tcflow};

use crate::support::*;

/// The lines that a terminal of 80 columns shows in the end.
fn screen(written: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in written.split('\n') {
        // Each state of the bar begins with one of these.
        let states = line.split("\x1b[2K").flat_map(|part| part.split(['\r', '\x1b']));
        let fits = |state: &str| state.chars().count() <= 80 + "[?7l".len();
        assert!(states.clone().all(fits), "a line that does not fit:\n{written}");
        let shown = line.rsplit("\x1b[2K").next().unwrap_or_default().trim();
        lines.extend((!shown.is_empty()).then(|| shown.to_owned()));
    }
    lines
}

/// A client whose transfer does not go on until its output is read.
#[track_caller]
fn start(terminal: &Terminal, command: &mut Command) -> Running {
    terminal.start(command.stdout(Stdio::piped()))
}

#[in_own_namespace]
fn a_slow_transfer_shows_a_bar_and_clears_it() {
    let (server, terminal) = (QuietServer::start(), Terminal::new(24, 80));
    let client = start(&terminal, server.client().args(["-v", "/none", "/file"]));
    terminal.wait_for("B of 4.00 MiB");
    assert!(client.finish().stdout == server.file.repeat(2));
    let left = screen(&terminal.close());
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left[0].starts_with("mqfs-client: /file: 4194304 bytes, verified"), "{left:?}");
    assert_eq!(left[1], "mqfs-client: /none: No such file or directory");
    assert!(left[3].starts_with("mqfs-client: 2 files, 8388608 bytes in "), "{left:?}");
    let piped = run(server.client().args(["--progress", "always"]));
    assert!(piped.stderr.contains(" of 4.00 MiB"), "{}", piped.stderr);
    assert!(piped.success() == server.file);
}

#[in_own_namespace]
fn a_bar_of_a_tree_counts_files() {
    let quiet = QuietServer::start();
    let folder = tempfile::tempdir().unwrap();
    let client = |arguments: &[&str], last: &str| {
        let mut client = with(quiet.server.client(), &["--verbose", "--progress", "always"]);
        // Without a terminal the last state stays.
        let finished = run(client.args(arguments).current_dir(folder.path()));
        assert!(finished.status.success(), "{}", finished.stderr);
        assert!(finished.stderr.contains(last), "{:?}", finished.stderr);
        let summary = "mqfs-client: 2 files, 4194309 bytes in ";
        assert!(finished.stderr.contains(summary), "{:?}", finished.stderr);
        finished.stdout
    };
    client(&["-C", ".", "/file", "/small"], "2 files done, small 100%");
    fs::remove_file(folder.path().join("file")).unwrap();
    let both = "2 files done, 4.00 MiB";
    client(&["--recursive", "/", "-C", "."], both);
    assert!(fs::read(folder.path().join("file")).unwrap() == quiet.file);
    assert!(client(&["--tar", "/"], both).len() > quiet.file.len());
    quiet.stop();
}

#[in_own_namespace]
fn an_archive_is_not_written_to_a_terminal() {
    let (server, terminal) = (QuietServer::start(), Terminal::new(24, 80));
    let mut command = server.server.client();
    command.args(["--tar", "/"]).stdout(terminal.inside.try_clone().unwrap());
    assert_eq!(terminal.start(&mut command).wait().code(), Some(2));
    let refused = "mqfs-client: --tar does not write an archive to a terminal";
    assert_eq!(screen(&terminal.close()), [refused]);
}

#[in_own_namespace]
fn every_signal_and_a_closed_output_clear_the_bar() {
    let server = QuietServer::start();
    let signals =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1];
    for signal in signals.map(Some).into_iter().chain([None]) {
        let terminal = Terminal::new(24, 80);
        let mut client = start(&terminal, &mut server.client());
        terminal.wait_for("B of 4.00 MiB");
        match signal {
            Some(signal) => client.signal(signal),
            None => drop(client.child().stdout.take()),
        }
        let code = if signal.is_some() { 130 } else { 141 };
        assert_eq!(client.wait().code(), Some(code), "{signal:?}");
        let left = signal.map(|_| "mqfs-client: interrupted");
        assert_eq!(screen(&terminal.close()), left.as_slice(), "{signal:?}");
    }
}

#[in_own_namespace]
fn no_bar_is_drawn_unless_wanted_and_possible() {
    let server = QuietServer::start();
    let cases: [(&[&str], &str); 3] =
        [(&["--progress", "never"], "xterm"), (&["--quiet"], "xterm"), (&[], "dumb")];
    let clients = cases.map(|(arguments, kind)| {
        let (terminal, mut command) = (Terminal::new(24, 80), server.client());
        command.args(arguments).stdout(Stdio::piped());
        (terminal.start_on(kind, &mut command), terminal)
    });
    let piped = Running::piped(&mut server.client());
    let short = Terminal::new(24, 80);
    assert!(start(&short, server.server.client().arg("/small")).wait().success());
    assert_eq!(short.close(), "", "no bar for so short a time");
    let start = Instant::now();
    wait_until("a bar would be there", || start.elapsed() > Duration::from_millis(900));
    for (client, terminal) in clients {
        assert!(client.finish().success() == server.file);
        assert_eq!(terminal.close(), "");
    }
    let piped = piped.finish();
    assert_eq!(piped.stderr, "");
    assert!(piped.success() == server.file);
}

#[in_own_namespace]
fn a_terminal_that_was_stopped_delays_a_transfer_and_keeps_no_signal_from_ending_it() {
    let (server, terminal) = (QuietServer::start(), Terminal::new(24, 80));
    let client = start(&terminal, &mut server.client());
    let mut killed = start(&terminal, &mut server.client());
    terminal.wait_for("B of 4.00 MiB");
    tcflow(&terminal.inside, FlowArg::TCOOFF).unwrap(); // as Ctrl-S does
    killed.signal(Signal::SIGTERM);
    assert_eq!(killed.wait().code(), Some(130));
    tcflow(&terminal.inside, FlowArg::TCOON).unwrap();
    assert!(client.finish().success() == server.file);
}

#[in_own_namespace]
fn a_bar_is_one_line_whatever_the_name_and_the_width() {
    let server = QuietServer::start();
    let hostile = "\u{1b}[31m\u{7}".to_owned() + &"x".repeat(100);
    for (columns, name) in [
        (20, "日本語のとても長いファイル名テスト日本語のとても長いファイル名テスト"),
        (48, "👩\u{200d}🚒👩\u{200d}🚒👩\u{200d}🚒❤\u{fe0f}👨\u{200d}👩\u{200d}👧\u{200d}👦xxxxx"),
        (64, "a\u{200b}b\u{ad}\u{ad}cafe\u{301}\u{301} ที่อยู่"),
        (80, &hostile),
    ] {
        let terminal = Terminal::new(24, columns);
        fs::write(server.path(name), &server.file).unwrap();
        let client = start(&terminal, server.server.client().arg(format!("/{name}")));
        terminal.wait_for(" of 4.00 MiB");
        assert!(client.finish().success() == server.file);
        let written = terminal.close();
        assert!(!written.contains("\x1b[31m"), "{written:?}");
        assert!(!written.contains("\x1b[1A"), "it was taken for two lines: {written:?}");
        // The terminal may take a character for wider. It never wraps then.
        let wraps = written.replace("\x1b[?7l", "\n").replace("\x1b[?7h", "\n");
        assert!(wraps.lines().step_by(2).all(|outside| !outside.contains("MiB")), "{written:?}");
        assert_eq!(screen(&written), [""; 0]);
    }
}
