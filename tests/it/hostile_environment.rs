//! Reused ids, removed locks and queues, stopped children, and logs that nobody reads.

use std::fs::{self};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::Command;

use mqfs::wire::NORMAL_PRIORITY;
use nix::sys::signal::Signal;
use sysv_ipc::{Lock, MessageBuffer, Mode};

use crate::support::*;

#[as_root_in_own_namespace]
fn a_server_leaves_a_later_queue_with_its_old_id_alone() {
    let (server, _folder, _) = serve_file(4 << 20, &["--max-children", "1"]);
    let stuck = stuck_client(&server, &["/file"]); // at the bound: it does not receive
    let queue = queue_of(server.key).unwrap();
    queue.remove().unwrap();
    let other = private_queue_with(queue.id(), Mode::new(0o600));
    other.send(&MessageBuffer::with_text(NORMAL_PRIORITY, b"not for the server")).unwrap();
    drop(stuck);
    wait_until("it has a new queue", || queue_of(server.key).is_some());
    assert_eq!(server.fetch("/file").len(), 4 << 20);
    server.stop();
    assert_eq!(other.status().unwrap().messages, 1);
}

#[in_own_namespace]
fn a_server_whose_lock_was_removed_gives_way_to_the_next() {
    let mut first = Server::start(&["--root", "/proc"]);
    Lock::open(first.key).unwrap().remove().unwrap();
    let second = Server::start_on(first.key, &["--root", "/proc"]);
    assert_eq!(first.running().wait().code(), Some(2));
    assert!(first.log().lines().count() < 5, "{}", first.log());
    assert!(!second.fetch("/version").is_empty());
    second.stop();
}

#[in_own_namespace]
fn a_client_whose_standard_error_nobody_reads_still_cleans_up() {
    let server = Server::start(&["--root", "/proc"]);
    server.freeze();
    let (_unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b'\n'; 65_536]).unwrap(); // the capacity of a pipe: pipe(7)
    let mut client = Running::start(server.client().arg("/version").stderr(full));
    wait_until("it waits", || !reply_queues().is_empty() && state_of(client.pid()) == Some('S'));
    client.signal(Signal::SIGTERM);
    assert_eq!(client.wait().code(), Some(130));
    assert_eq!(reply_queues(), []);
}

#[in_own_namespace]
fn output_through_a_link_reaches_a_file_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("stdout");
    symlink("/proc/self/fd/1", &link).unwrap();
    let mut unnamed = tempfile::tempfile().unwrap();
    let server = Server::start(&["--root", "/proc"]);
    let mut client = server.client();
    let client = client.arg("-o").arg(&link).arg("/version").stdout(unnamed.try_clone().unwrap());
    Running::start(client).finish().success();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mut content = String::new();
    std::io::Seek::rewind(&mut unnamed).unwrap();
    unnamed.read_to_string(&mut content).unwrap();
    assert!(content.starts_with("Linux"), "{content:?}");

    // The same with a named file: what others write there before and after stays.
    let named = folder.path().join("named");
    let mut shell = Command::new("sh");
    let script = r#"(echo before; "$1" -k "$2" -o /dev/stdout /version; echo after) > "$3""#;
    shell.args(["-c", script, "sh"]).arg(server.client().get_program());
    run(shell.arg(server.key.to_string()).arg(&named)).success();
    let content = fs::read_to_string(&named).unwrap();
    assert!(content.starts_with("before\nLinux") && content.ends_with("after\n"), "{content}");

    let nowhere = folder.path().join("nowhere");
    symlink("not-made", &nowhere).unwrap();
    assert_eq!(run(server.client().arg("-o").arg(&nowhere).arg("/missing")).code(), Some(1));
    assert!(!folder.path().join("not-made").exists());

    let dangling = folder.path().join("dangling");
    symlink("target", &dangling).unwrap();
    for _ in 0..2 {
        run(server.client().arg("-o").arg(&dangling).arg("/version")).success();
        assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink());
        assert!(fs::read_to_string(folder.path().join("target")).unwrap().starts_with("Linux"));
    }
}

#[in_own_namespace]
fn a_file_size_limit_ends_with_status_1() {
    let (server, folder, _) = serve_file(4 << 20, &[]);
    let copy = folder.path().join("copy");
    let client = &mut with(server.client(), &["/file", "-o"]);
    let limited = run(&mut by(&["prlimit", "--fsize=4096"], client.arg(&copy)));
    assert_eq!((limited.code(), limited.stderr.lines().count()), (Some(1), 1));
    assert!(limited.stderr.ends_with("File too large\n"), "{}", limited.stderr);
    assert!(!copy.exists());
}

#[as_root_in_own_namespace]
fn queue_limits_that_are_too_small_are_reported() {
    let server = Server::start(&["--root", "/proc"]);
    for limit in ["msgmax", "msgmnb"] {
        let path = format!("/proc/sys/kernel/{limit}");
        let normal = fs::read(&path).unwrap();
        fs::write(&path, "50").unwrap();
        let refused = run(server.client().arg("/version"));
        assert_eq!(refused.code(), Some(2), "{limit}: {}", refused.stderr);
        assert!(refused.stderr.contains("queues are too small here"), "{}", refused.stderr);
        fs::write(&path, normal).unwrap();
    }
}

/// As process 1 of a pid namespace a server inherits the children of dead processes.
#[as_root_in_own_namespace]
fn a_server_with_pid_1_survives_a_crowd_of_orphans() {
    let key = unique_key();
    // The shell becomes the server; the orphans end while it serves.
    let orphans = r#"for i in $(seq 100); do (sleep 0.3 &); done; exec "$0" "$@""#;
    let server = with(server_of(key), &["--root", "/proc", "--max-children", "2"]);
    let command = by(&["sh", "-c", orphans], &server);
    let server = Server::start_as(key, &mut unshared(&["--pid", "--mount-proc"], &command));
    for _ in 0..100 {
        assert!(!server.fetch("/version").is_empty());
    }
    let init = server.children()[0];
    wait_until("the orphans are reaped", || children_of(init).is_empty());
    server.stop_inner();
}
