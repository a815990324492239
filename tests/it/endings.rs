//! How programs end: closed, full and blocked output, and wrong options.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::*;

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
}

/// The same command, with its standard output closed.
fn closed(command: &Command) -> Command {
    by(&["sh", "-c", "exec \"$0\" \"$@\" >&-"], command)
}

#[in_own_namespace]
fn closed_or_full_output_is_an_error_of_every_program() {
    let (server, folder, _) = serve_file(1, &[]);
    fs::write(folder.path().join("empty"), "").unwrap();
    let client = |arguments: &[&str]| with(server.client(), arguments);
    let mut commands = vec![
        client(&["/file", "/missing"]),
        client(&["-q", "/file"]),
        client(&["--tar", "/"]),
        client(&["-l"]),
        client(&["-l", "/file"]),
        client(&["--json", "--list", "/"]),
        client(&["--stat", "/file"]),
        with(program("mqfs-reap"), &["-n"]),
        with(program("mqfs-reap"), &["--json"]),
        stat_of(server.key),
        with(stat_of(server.key), &["--json"]),
        with(stat_of(server.key), &["--prometheus"]),
    ];
    for name in ["mqfs-server", "mqfs-client", "mqfs-reap", "mqfs-stat"] {
        commands.extend([with(program(name), &["--help"]), with(program(name), &["--version"])]);
    }
    let full_disk = commands.into_iter().map(|command| (command, "No space left on device"));
    let mut cases: Vec<_> = full_disk.collect();
    let watch = ["--watch", "1h"];
    commands = vec![with(program("mqfs-reap"), &watch), with(stat_of(server.key), &watch)];
    commands.push(client(&["/empty"]));
    let always = cases.iter().map(|(command, _)| command).chain(&commands).map(closed);
    let always: Vec<_> = always.collect();
    cases.extend(always.into_iter().map(|command| (command, "Bad file descriptor")));
    for (command, why) in cases {
        let what = format!("{command:?}");
        let ended = write_to(full(), command);
        let is_quiet = what.contains("\"-q\"");
        let told = format!(": cannot write standard output: {why}\n");
        assert!(is_quiet || ended.stderr.ends_with(&told), "{what}: {}", ended.stderr);
        let lines = usize::from(!is_quiet);
        assert_eq!((ended.code(), ended.stderr.lines().count()), (Some(1), lines), "{what}");
    }
    // What does not write there does not mind.
    let target = folder.path().join("copy");
    let copy = client(&["/file", "-o", target.to_str().unwrap()]);
    assert_eq!(run(&mut closed(&copy)).code(), Some(0));
}

/// A supervisor may close standard output, and a disk may be full: neither keeps files from users.
#[in_own_namespace]
fn a_server_serves_also_if_it_cannot_say_that_it_is_ready() {
    let key = unique_key();
    let server = server_of(key);
    for (mut command, is_warned) in [(closed(&server), false), (server, true)] {
        let server = Running::start(command.stdout(full()).stderr(Stdio::piped()));
        wait_until("it serves", || run(client(key).arg("/etc/passwd")).code() == Some(0));
        server.signal(Signal::SIGTERM);
        let server = server.finish();
        assert_eq!(server.code(), Some(0));
        assert_eq!(server.stderr.contains("No space left on device"), is_warned);
    }
}

#[in_own_namespace]
fn options_are_read_as_other_tools_read_them_and_the_last_one_counts() {
    let (server, folder, _) = serve_file(1, &[]);
    let (octal, hex) =
        (format!("0{:o}", server.key.as_raw()), format!("0X{:X}", server.key.as_raw()));
    for arguments in [
        &["-k", "1", "-k", &octal][..],
        &["-k", &hex, "--timeout", "1ms", "--timeout", "20"],
        &["--timeout", "2.5", "--retries", "0", "--retries", "1", "--server-uid", "root"],
        &["--silent", "-q", "-q", "--length", "1k", "--length", "1m"],
        &["--target-directory", "/nowhere", "-C", folder.path().to_str().unwrap()],
    ] {
        let fetched = run(server.client().args(arguments).arg("small"));
        assert_eq!(fetched.code(), Some(0), "{arguments:?}: {}", fetched.stderr);
    }
}

#[test]
fn wrong_options_are_refused_with_one_line() {
    const CONFLICT: &str = "cannot be used with";
    for (name, arguments, why) in [
        ("mqfs-stat", &["nonsense"][..], "not a key"),
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
        ("mqfs-reap", &["--uid", "no such user"], "no such user"),
        ("mqfs-reap", &["--uid", "-1"], "unexpected argument"),
        ("mqfs-reap", &["--uid", "4294967295"], "not a user"),
        ("mqfs-reap", &["--uid", "4294967296"], "no such user"),
        ("mqfs-reap", &["somewhere"], "unexpected argument"),
        ("mqfs-reap", &["--uid", "65532", "--uid", ""], "no such user"), // the last one counts
        ("mqfs-client", &[], "required"),
        ("mqfs-client", &["--verbos", "/f"], "'--verbose'"),
        ("mqfs-client", &["-name"], "use '-- -n'"),
        ("mqfs-client", &["-r", "/f"], "needs --directory DIR or --tar"),
        ("mqfs-client", &["-o", "x", "--no-preserve", "/f"], "needs --directory DIR or --tar"),
        ("mqfs-client", &["--json", "/f"], "needs --list or --stat"),
        ("mqfs-client", &["-l", "--progress", "always"], "show no progress"),
        ("mqfs-client", &["-l", "--stat"], CONFLICT),
        ("mqfs-client", &["-l", "--plain"], CONFLICT),
        ("mqfs-client", &["--stat", "-R", "/f"], CONFLICT),
        ("mqfs-client", &["-l", "-o", "x"], CONFLICT),
        ("mqfs-client", &["--timeout", "0", "/f"], "more than zero"),
        ("mqfs-client", &["--timeout", "inf", "/f"], "durations are written"),
        ("mqfs-client", &["--key", "0x100000000", "/f"], "not a key"),
        ("mqfs-client", &["--key", "0", "/f"], "IPC_PRIVATE"),
        ("mqfs-client", &["/f", "--offset", "-1"], "sizes are written"),
        ("mqfs-client", &["/f", "--offset", "1X"], "invalid value"),
        ("mqfs-client", &["/f", "--length", "99999999999T"], "invalid value"),
        ("mqfs-client", &["/f", "--plain", "--length", "1"], CONFLICT),
        ("mqfs-client", &["/f", "--plain", "--offset", "1"], CONFLICT),
        ("mqfs-server", &["--mode", "0666"], "it must be 0600, 0620, 0602 or 0622"),
        ("mqfs-server", &["--mode", "0400"], "mode 0400"),
        ("mqfs-server", &["--mode", "9"], "not a mode"),
        ("mqfs-server", &["--max-children", "0"], "1..=65535"),
        ("mqfs-server", &["--window", "65M"], "more than 64M"),
        ("mqfs-server", &["--stall-timeout", "0s"], "more than zero"),
        ("mqfs-server", &["--root", "/no/such/folder"], "root /no/such/folder: ENOENT"),
        ("mqfs-server", &["--root", "/etc/passwd"], "root /etc/passwd: ENOTDIR"),
    ] {
        let mut command = program(name);
        if name == "mqfs-server" {
            command.args(["-k", &unique_key().to_string()]);
        }
        let refused = run(command.args(arguments));
        assert_eq!((refused.code(), &*refused.stdout), (Some(2), &b""[..]), "{arguments:?}");
        assert!(refused.stderr.contains(why), "{arguments:?}: {}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
}
