//! Interrupted transfers.

use std::fs;
use std::os::unix::fs::FileExt;

use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::recovery::Place;
use crate::support::{
    Running, Server, Stuck, allocate, as_root_in_own_pid_namespace, in_own_namespace, noise,
    owner_of, reply_queues, sleeper, wait_until,
};

/// Kills a server and all its children.
fn kill_all(mut server: Server) {
    server.kill_with_children();
    server.make_way(); // its queue is for the next one
}

#[in_own_namespace]
fn a_replaced_file_is_fetched_again_or_is_an_error() {
    let place = Place::new();
    let server = place.serve(&[]);
    let copy = place.folder.path().join("copy");
    let to_stdout = Stuck::start(&mut place.client());
    // Large enough to be stopped in the middle.
    allocate(place.folder.path().join("large"), 1 << 32);
    let mut command = crate::support::client(place.key);
    command.arg("-o").arg(&copy).arg("/large");
    let to_file = Running::piped(&mut command);
    wait_until("it writes", || to_file.incomplete_file().is_some_and(|file| file.len() > 0));
    to_file.freeze();
    assert_eq!(reply_queues().len(), 2, "it was too fast");
    // One changes in its place and keeps its time, and one is replaced.
    let path = place.folder.path().join("file");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"other", 0).unwrap();
    file.set_modified(mtime).unwrap();
    let other = noise((4 << 20) + 1);
    let new = place.folder.path().join("new");
    fs::write(&new, &other).unwrap();
    fs::rename(&new, place.folder.path().join("large")).unwrap();
    server.kill_children();
    let broken = to_stdout.client.finish();
    assert_eq!(broken.code(), Some(1));
    let expected = "mqfs-client: /file: incomplete: the file changed while the server was away\n";
    assert_eq!(broken.stderr, expected);
    to_file.signal(Signal::SIGCONT);
    to_file.finish().success();
    assert!(fs::read(copy).unwrap() == other);
    server.stop();
}

#[in_own_namespace]
fn when_no_server_comes_back_the_transfer_fails_at_its_timeout() {
    let place = Place::new();
    let server = place.serve(&[]);
    let stuck = Stuck::start(place.client().args(["--timeout", "1s", "--progress", "always"]));
    kill_all(server);
    let failed = stuck.client.finish();
    assert_eq!(failed.code(), Some(1));
    assert!(failed.stderr.contains("waiting for the server"), "{}", failed.stderr);
    let expected = "mqfs-client: /file: incomplete: the server's child died on the way\n";
    assert!(failed.stderr.contains(expected), "{}", failed.stderr);
    place.serve(&[]).stop();
}

#[test]
fn a_dead_child_is_not_confused_with_a_process_that_reuses_its_pid() {
    as_root_in_own_pid_namespace(
        "resume::a_dead_child_is_not_confused_with_a_process_that_reuses_its_pid",
        || {
            let place = Place::new();
            let server = place.serve(&[]);
            let mut stuck = Stuck::start(&mut place.client());
            stuck.wait_for_its_output(); // by then it has looked at who sends
            let child = server.children()[0];
            let born = owner_of(child).start_time;
            // All at once, so that nobody informs the client.
            kill_all(server);
            waitpid(Pid::from_raw(child), None).unwrap(); // we are process 1 here
            let mut other = None;
            wait_until("the pid is another's", || {
                fs::write("/proc/sys/kernel/ns_last_pid", (child - 1).to_string()).unwrap();
                let process = sleeper();
                // Start times count hundredths of a second; let one pass.
                let found = process.pid() == child && owner_of(child).start_time != born;
                other = Some(process);
                found
            });
            let next = place.serve(&[]);
            assert!(stuck.finish() == place.file);
            next.stop();
        },
    );
}
