//! A server that runs out of descriptors, memory or disk space for its log.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{Place, signal};
use crate::support::{
    Running, Server, Stuck, by, children_of, fails, in_own_namespace, queue_of, run, wait_until,
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
    let why = "mqfs-server: landlock_create_ruleset: EMFILE: Too many open files\n";
    fails(&mut by(&["prlimit", "--nofile=4:4"], &server), 2, why);
    assert_eq!(queue_of(place.key), None);
}

#[in_own_namespace]
fn a_server_without_descriptors_tells_its_clients_and_recovers() {
    let place = Place::new();
    let server = place.serve(&[]);
    let under_way = Stuck::start(&mut place.client());
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

#[in_own_namespace]
fn a_log_that_cannot_be_written_delays_nobody_and_goes_on_when_it_can() {
    let place = Place::new();
    let full_pipe = || {
        let (unread, mut pipe) = std::io::pipe().unwrap();
        pipe.write_all(&[b'\n'; 60_000]).unwrap(); // nearly its capacity: pipe(7)
        (Stdio::from(pipe), Some(unread))
    };
    let full = File::options().write(true).open("/dev/full").unwrap();
    let short = File::create(place.folder.path().join("log")).unwrap();
    for ((log, mut unread), format) in [
        (full_pipe(), "text"),
        (full_pipe(), "json"),
        ((Stdio::from(std::io::pipe().unwrap().1), None), "text"),
        ((full.into(), None), "text"),
        ((short.into(), None), "text"),
    ] {
        let server = place.command(&["--max-children", "2", "--log-format", format]);
        let mut command = by(&["prlimit", "--fsize=100:100"], &server);
        let mut server = Running::start(command.stdout(Stdio::null()).stderr(log));
        drop(command); // it has the log open too
        wait_until("it can be asked", || queue_of(place.key).is_some());
        // A line for which the pipe has not enough room.
        let unknown = "\u{7f}".repeat(3000);
        assert_eq!(run(crate::support::client(place.key).arg(unknown)).code(), Some(1));
        place.crowd(4, &["/file"; 4]).all_get(&place.file.repeat(5));
        let _stuck = Stuck::start(&mut place.client());
        let stuck = Stuck::start(&mut place.client());
        for child in children_of(server.pid()) {
            signal(child, Signal::SIGKILL); // which is logged by the parent
        }
        assert!(stuck.finish() == place.file);
        if let Some(pipe) = &mut unread {
            pipe.read_exact(&mut [0; 60_000]).unwrap();
        }
        place.fetch();
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success());
        let told = unread.map(|pipe| std::io::read_to_string(pipe).unwrap());
        assert!(told.is_none_or(|log| log.contains("/file")));
    }
}
