//! How programs end: closed, full and blocked output, and wrong options.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sysv_ipc::{Mode, OwnedQueue};

use crate::support::{
    Finished, Running, as_root_in_own_namespace, dead_owner, exists, in_own_namespace, leased,
    program, reply_queues, run, serve_file, stat_of, unique_key, wait_until,
};

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// Runs a program with this standard output.
#[track_caller]
fn write_to(stdout: impl Into<Stdio>, mut command: Command) -> Finished {
    Running::start(command.stdout(stdout).stderr(Stdio::piped())).finish()
}

#[as_root_in_own_namespace]
fn closed_output_ends_a_program_like_a_filter_and_nothing_is_left() {
    let (server, _folder, _) = serve_file(4 << 20, &["--reap-interval", "1h"]);
    let restart = ["--key", &unique_key().to_string()];
    for (command, code) in [
        (with(server.client(), &["/file"]), 141),
        (with(server.client(), &["/small", "/file"]), 141),
        (program("mqfs-reap"), 141),
        (stat_of(server.key), 141),
        (with(stat_of(server.key), &["--watch", "1h"]), 141),
        // Examples, which are of a simpler kind.
        (program("priority"), 1),
        (program("limits"), 1),
        (with(program("restart"), &restart), 1),
    ] {
        let orphan = leased(dead_owner());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let what = format!("{command:?}");
        let is_reaper = what.contains("mqfs-reap");
        let ended = write_to(writer, command);
        assert_eq!((ended.code(), &*ended.stderr), (Some(code), ""), "{what}");
        assert_eq!(exists(*orphan), !is_reaper, "a reaper does its work before");
        drop(orphan);
        assert_eq!(reply_queues(), [], "{what}");
    }
    server.stop();
}

#[in_own_namespace]
fn a_full_disk_is_told_in_one_line() {
    let (server, _folder, _) = serve_file(1, &[]);
    for (command, code) in [(with(server.client(), &["/file"]), 1), (stat_of(server.key), 2)] {
        let name = command.get_program().to_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let ended = write_to(File::options().write(true).open("/dev/full").unwrap(), command);
        let expected = format!("{name}: standard output: No space left on device");
        assert_eq!((ended.code(), ended.stderr.lines().count()), (Some(code), 1));
        assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
    }
    server.stop();
}

#[as_root_in_own_namespace]
fn a_signal_ends_a_program_while_its_output_blocks() {
    let queue = OwnedQueue::create(unique_key(), Mode::new(0o600)).unwrap();
    let key = queue.status().unwrap().permissions.key;
    let orphan = leased(dead_owner());
    for (command, code) in [
        (with(stat_of(key), &["--watch", "1h"]), 130),
        (with(program("mqfs-reap"), &["--watch", "1h"]), 0),
    ] {
        let (_unread, mut full) = std::io::pipe().unwrap();
        full.write_all(&vec![b'\n'; 65_536]).unwrap(); // the capacity of a pipe: pipe(7)
        let mut command = command;
        let mut running = Running::start(command.stdout(full));
        wait_until("it waits", || waits_for_room(running.pid()));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().code(), Some(code), "{command:?}");
    }
    assert!(!exists(*orphan));
}

/// Whether a thread of this process waits to write into a pipe.
fn waits_for_room(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().any(|task| {
        let at = std::fs::read_to_string(task.path().join("wchan"));
        at.is_ok_and(|at| at.contains("pipe_write"))
    })
}

#[test]
fn wrong_options_are_refused_with_one_line() {
    const CONFLICT: &str = "cannot be used with";
    for (name, arguments, why) in [
        ("mqfs-stat", &["nonsense"][..], "not a key"),
        ("mqfs-stat", &["0"], "IPC_PRIVATE"),
        ("mqfs-stat", &["1", "2"], "unexpected argument"),
        ("mqfs-stat", &["1", "-k", "2"], CONFLICT),
        ("mqfs-stat", &["1", "--key-file", "/etc"], CONFLICT),
        ("mqfs-stat", &["--key-file", "/none"], "No such file or directory"),
        ("mqfs-stat", &["--prometheus", "--json"], CONFLICT),
        ("mqfs-stat", &["--prometheus", "--watch", "1s"], CONFLICT),
        ("mqfs-stat", &["--watch", "1ms"], "must be at least 100ms"),
        ("mqfs-stat", &["--watch"], "a value is required"),
        ("mqfs-reap", &["--check", "--watch", "1s"], CONFLICT),
        ("mqfs-reap", &["--older-than", "0s"], "must be more than zero"),
        ("mqfs-reap", &["--older-than", "soon"], "durations are written 30s, 5m, 1h"),
        ("mqfs-reap", &["--older-than", "101years"], "must be at most 100 years"),
        ("mqfs-reap", &["--watch", "99ms"], "must be at least 100ms"),
        ("mqfs-reap", &["--uid", "no such user"], "no such user"),
        ("mqfs-reap", &["--uid", "-1"], "unexpected argument"),
        ("mqfs-reap", &["--uid", "4294967295"], "not a user"),
        ("mqfs-reap", &["--uid", "4294967296"], "no such user"),
        ("mqfs-reap", &["--uid", ""], "no such user"),
        ("mqfs-reap", &["--uid", "0", "--uid", "1"], "cannot be used multiple times"),
        ("mqfs-reap", &["somewhere"], "unexpected argument"),
        ("mqfs-client", &[], "required"),
        ("mqfs-client", &["--key", "nonsense", "/f"], "not a key"),
        ("mqfs-client", &["--key", "0", "/f"], "IPC_PRIVATE"),
        ("mqfs-client", &["--timeout", "x", "/f"], "durations are written"),
        ("mqfs-client", &["/f", "--offset", "-1"], "unexpected argument"),
        ("mqfs-client", &["/f", "--offset", "1X"], "invalid value"),
        ("mqfs-client", &["/f", "--length", "K"], "invalid value"),
        ("mqfs-client", &["/f", "--length", "99999999999T"], "invalid value"),
        ("mqfs-client", &["/f", "--plain", "--length", "1"], CONFLICT),
        ("mqfs-client", &["/f", "--plain", "--offset", "1"], CONFLICT),
        ("mqfs-client", &["/ok", ""], "invalid path: a path must not be empty"),
        ("mqfs-client", &["/ok", &"a".repeat(4096)], "4096 bytes are more than 4095"),
        ("mqfs-server", &["--mode", "0666"], "it must be 0600, 0620, 0602 or 0622"),
        ("mqfs-server", &["--mode", "0400"], "mode 0400"),
        ("mqfs-server", &["--mode", "9"], "not a mode"),
        ("mqfs-server", &["--max-children", "0"], "1..=65535"),
        ("mqfs-server", &["--window", "65M"], "more than 64M"),
        ("mqfs-server", &["--key", "0"], "IPC_PRIVATE"),
        ("mqfs-server", &["--key-file", "/no/such/file"], "--key-file /no/such/file"),
        ("mqfs-server", &["--stall-timeout", "0s"], "more than zero"),
        ("mqfs-server", &["--root", "/no/such/folder"], "root /no/such/folder: ENOENT"),
        ("mqfs-server", &["--root", "/etc/passwd"], "root /etc/passwd: ENOTDIR"),
    ] {
        let mut command = program(name);
        if name == "mqfs-server" && !arguments[0].starts_with("--key") {
            command.args(["-k", &unique_key().to_string()]);
        }
        let refused = run(command.args(arguments));
        assert_eq!((refused.code(), &*refused.stdout), (Some(2), &b""[..]), "{arguments:?}");
        assert!(refused.stderr.contains(why), "{arguments:?}: {}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
}
