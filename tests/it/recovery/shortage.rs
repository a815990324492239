//! A server that runs out of descriptors, memory or disk space for its log.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::{Place, signal};
use crate::support::{
    Running, Server, Stuck, as_root_in_own_namespace, children_of, in_own_namespace, queue_of, run,
    wait_until,
};

/// Sets a limit of a running server with `prlimit`.
#[track_caller]
fn limit(server: &Server, what: &str) {
    run(Command::new("prlimit").args(["--pid", &server.pid().to_string(), what])).success();
}

/// It must not serve unconfined.
#[in_own_namespace]
fn a_server_with_too_few_descriptors_to_confine_itself_does_not_start() {
    let place = Place::new();
    let server = place.command(&["--quiet"]);
    let mut command = Command::new("prlimit");
    command.arg("--nofile=4:4").arg(server.get_program()).args(server.get_args());
    let ended = run(&mut command);
    let why = "mqfs-server: landlock_create_ruleset: EMFILE: Too many open files\n";
    assert_eq!((ended.code(), &*ended.stderr), (Some(2), why));
    assert_eq!(queue_of(place.key), None);
}

#[in_own_namespace]
fn a_server_without_descriptors_tells_its_clients_and_recovers() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
    server.only_child(); // none that was forked before waits for a request
    limit(&server, "--nofile=3:");
    for client in place.crowd(8, &[]).finish() {
        assert_eq!(client.code(), Some(1));
        assert_eq!(client.stderr, "mqfs-client: /file: Too many open files\n");
    }
    assert!(under_way.finish() == place.file, "what is open stays open");
    limit(&server, "--nofile=100:");
    place.fetch();
    server.stop();
}

#[in_own_namespace]
fn a_server_without_memory_survives_and_recovers() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
    limit(&server, "--as=1:"); // less than it has: not a byte more
    for client in place.crowd(16, &[]).finish() {
        // Either its memory suffices, or the child dies.
        assert!(matches!(client.code(), Some(0 | 1)), "{}", client.stderr);
        assert_eq!(client.code() == Some(0), client.stdout == place.file, "{}", client.stderr);
    }
    assert!(under_way.finish() == place.file);
    limit(&server, "--as=unlimited:");
    place.fetch();
    server.stop();
}

/// A server that logs to another place.
#[track_caller]
fn start_with_log(place: &Place, command: &mut Command, log: impl Into<Stdio>) -> Running {
    let server = Running::start(command.stdout(Stdio::null()).stderr(log));
    wait_until("it can be asked", || queue_of(place.key).is_some());
    server
}

#[in_own_namespace]
fn a_log_that_cannot_be_written_delays_nobody() {
    let place = Place::new();
    let (_, closed) = std::io::pipe().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let short = File::create(place.folder.path().join("log")).unwrap();
    for log in [Stdio::from(closed), full.into(), short.into()] {
        let server = place.command(&["--max-children", "2"]);
        let mut command = Command::new("prlimit");
        command.arg("--fsize=100:100").arg(server.get_program()).args(server.get_args());
        let mut server = start_with_log(&place, &mut command, log);
        place.crowd(4, &["/file"; 4]).all_get(&place.file.repeat(5));
        let _stuck = Stuck::start(&mut place.client());
        let stuck = Stuck::start(&mut place.client());
        for child in children_of(server.pid()) {
            signal(child, Signal::SIGKILL); // which is logged by the parent
        }
        assert!(stuck.finish() == place.file);
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success());
    }
}

/// Mounts a tmpfs only for this thread and what it starts; false if it may not.
fn mount_tmpfs(folder: &Path, size: &str) -> bool {
    let mount = |arguments: &[&str]| {
        run(Command::new("mount").args(arguments).arg(folder)).code() == Some(0)
    };
    unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && run(Command::new("mount").args(["--make-rprivate", "/"])).code() == Some(0)
        && mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
}

#[as_root_in_own_namespace]
fn a_full_log_disk_delays_nobody_and_logging_resumes_later() {
    let place = Place::new();
    let disk = tempfile::tempdir().unwrap();
    if !mount_tmpfs(disk.path(), "16k") {
        return eprintln!("skipped: cannot mount");
    }
    let path = disk.path().join("log");
    let log = File::options().create(true).append(true).open(&path).unwrap();
    let mut server = start_with_log(&place, &mut place.command(&[]), log);
    let unknown = format!("/{}", "no/such/file/".repeat(200));
    let fill = || {
        let before = fs::metadata(&path).unwrap().len();
        assert_eq!(run(crate::support::client(place.key).arg(&unknown)).code(), Some(1));
        wait_until("it is logged", || children_of(server.pid()).is_empty());
        fs::metadata(&path).unwrap().len() > before
    };
    wait_until("the disk is full", || !fill());
    assert!((0..10).all(|_| !fill()));
    place.fetch();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    place.fetch();
    wait_until("it is told", || fs::read_to_string(&path).unwrap().contains(r#"path="/file""#));
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
}

/// Injects failing kernel allocations.
#[in_own_namespace]
fn clients_retry_if_the_server_cannot_fork() {
    let place = Place::new();
    let server = place.command(&[]);
    let mut command = Command::new("strace");
    // strace -D is no parent of the server. The first five forks fail, also that of the reaper.
    command.args(["-D", "-qq", "-o", "/dev/null", "-e", "trace=clone"]);
    command.args(["-e", "inject=clone:error=ENOMEM:when=1..5"]);
    let mut check = Command::new("strace");
    check.args(["-D", "-qq", "-o", "/dev/null", "true"]);
    if !check.status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: cannot trace");
    }
    command.arg(server.get_program()).args(server.get_args());
    let server = Server::start_as(place.key, &mut command);
    place.fetch();
    let log = server.log();
    assert!(log.contains("housekeeping put off: fork failed errno=ENOMEM"), "{log}");
    assert!(log.contains(r#"reason="fork failed" detail="ENOMEM"#), "{log}");
    server.stop();
}
