//! Interrupted transfers, and ranges of files.

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
use crate::tree::Site;

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

/// A server of `/file`, of 4 MiB, a folder to write to, and the file.
fn site() -> (Site, Vec<u8>) {
    let (site, file) = (Site::start(), noise(4 << 20));
    site.put("file", &file);
    (site, file)
}

#[in_own_namespace]
fn a_range_matches_head_and_tail() {
    let (site, file) = site();
    let whole = file.len();
    for (offset, length, begin, end) in [
        ("0", Some("0"), 0, 0),
        ("0", Some("1"), 0, 1),
        ("1", None, 1, whole),
        ("8136", Some("8136"), 8136, 2 * 8136),
        ("1M", Some("1M"), 1 << 20, 2 << 20),
        ("4095K", Some("9G"), 4095 << 10, whole),
        ("4M", None, whole, whole),
        ("17T", Some("5"), whole, whole),
    ] {
        let length = length.map(|length| ["--length", length]).into_iter().flatten();
        let arguments: Vec<_> = ["/file", "--offset", offset].into_iter().chain(length).collect();
        assert!(site.run(&arguments).success() == file[begin..end], "{arguments:?}");
    }
    let twice = site.run(&["--offset", "2", "--length", "3", "/file", "/file"]).success();
    assert_eq!(twice, [&file[2..5], &file[2..5]].concat());
    site.server.stop();
}

#[in_own_namespace]
fn a_range_resumes_where_it_broke_off() {
    let (site, file) = site();
    let mut command = site.server.client();
    let stuck = Stuck::start(command.args(["-v", "--offset", "1000", "--length", "3M", "/file"]));
    site.server.kill_children();
    let finished = stuck.client.finish();
    let range = &file[1000..1000 + (3 << 20)];
    let checksum = crc32fast::hash(range);
    let how = format!("{} bytes, in 2 parts, verified (CRC-32 {checksum:08x})", range.len());
    assert!(finished.stderr.contains(&how), "{}", finished.stderr);
    assert!(finished.stderr.contains("waiting for the server"), "{}", finished.stderr);
    assert!(finished.success() == range);
    site.server.stop();
}
