//! File systems that do not answer, and processes that hang in execve(2), which /proc does not
//! show.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use mqfs::ownership::lease;
use mqfs::sys::exit_now;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::execv;
use sysv_ipc::QueueId;

use crate::reaper_keeps::{foreign, used_by_the_dead};
use crate::support::Unanswered::{All, Close, List, Lookup, New, Open, Read, Stat, StatOfTop};
use crate::support::*;

/// What holds a child for good, but for a signal.
const HOLDS_A_FILE: [Unanswered; 6] = [Lookup, Stat, Open, Read, Close, All];

fn children_hung(server: &Server) -> u64 {
    let shown = run(stat_of(server.key).arg("--json")).success();
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    shown["counters"]["children_hung"].as_u64().unwrap()
}

#[as_root_with_mounts]
fn nobody_waits_for_others_files_that_hang() {
    let limits = ["--max-children", "12", "--max-per-user", "6"];
    let times = ["--stall-timeout", "4s", "--drain-timeout", "1s"];
    let site = Site::start(&[limits, times].concat());
    let _mounts: Vec<_> =
        HOLDS_A_FILE.map(|way| HungMount::on(&site.at(&format!("{way:?}")), way)).into();
    let fetch = |uid, way| Running::piped(site.client(uid).arg(format!("/{way:?}/file")));
    let ways = HOLDS_A_FILE.into_iter();
    let clients: Vec<_> =
        ways.flat_map(|way| [ATTACKER, VICTIM].map(|uid| (way, fetch(uid, way)))).collect();
    wait_until("all are held", || site.server.children().len() == 12);

    let start = Instant::now();
    let served = run(site.client(SOMEBODY).arg("/file"));
    assert!(served.success() == site.file);
    assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    let busy = run(site.client(VICTIM).args(["--timeout", "200ms", "/file"]));
    assert!(busy.stderr.contains("a file system does not answer some of them"), "{}", busy.stderr);
    wait_until("all count as hung", || children_hung(&site.server) == 12);

    for (way, client) in clients {
        let told = client.finish();
        if way == Close {
            assert_eq!(told.success(), b"file");
            continue;
        }
        let why = "the file system does not answer";
        let expected = format!("mqfs-client: /{way:?}/file: {why}\n");
        assert_eq!((told.code(), told.stderr), (Some(1), expected));
        let line = format!(r#"path="/{way:?}/file""#);
        let log = site.server.log();
        assert!(log.lines().any(|log| log.contains(why) && log.contains(&line)), "{log}");
    }
    assert!(start.elapsed() < DEADLINE / 4);
    assert!(!site.server.children().is_empty(), "no child is beyond SIGKILL");

    let (key, start) = (site.server.key, Instant::now());
    site.server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    Server::start_on(key, &["--root", "/etc"]).stop();
}

#[as_root_with_mounts]
fn a_tree_goes_on_behind_what_hangs() {
    let told = "the file system does not answer";
    for (stall, timeout, why) in
        [("1s", "1m", told), ("1h", "1s", "timed out: nothing came for 1s")]
    {
        let times = ["--stall-timeout", stall, "--idle-timeout", "1s"];
        let (server, folder) = serve_folder(&times);
        let at = |name: String| folder.path().join(name);
        let mut trees = vec![];
        for way in [Lookup, Stat, Open, Read, Close, List, StatOfTop] {
            fs::create_dir(at(format!("{way:?}"))).unwrap();
            for name in ["a", "z"] {
                fs::write(at(format!("{way:?}/{name}")), name).unwrap();
            }
            let mount = HungMount::on(&at(format!("{way:?}/m")), way);
            let into = tempfile::tempdir().unwrap();
            let mut client = server.client();
            client.args(["--timeout", timeout, "-r", &format!("/{way:?}"), "-C"]).arg(into.path());
            trees.push((way, Running::piped(&mut client), into, mount));
        }
        for (way, client, into, _mount) in trees {
            let finished = client.finish();
            assert_eq!(finished.code(), Some(1), "{way:?}: {}", finished.stderr);
            let hung = if matches!(way, Open | Read | Close) { "m/file" } else { "m" };
            let lines = [
                format!("mqfs-client: /{way:?}/{hung}: {why}\n"),
                format!("mqfs-client: /{way:?}: incomplete: 1 entry is missing\n"),
            ];
            assert_eq!(finished.stderr, lines.concat());
            let has = |name| fs::read_to_string(into.path().join(format!("{way:?}/{name}"))).ok();
            assert_eq!([has("a").as_deref(), has("z").as_deref()], [Some("a"), Some("z")]);
            assert!(hung == "m" || has("m/good").as_deref() == Some("good"), "{way:?}");
        }
        server.wait_until_idle();
    }
}

#[as_root_with_mounts]
fn many_files_that_hang_do_not_take_a_timeout_each() {
    let (server, folder, _) = serve_file(1, &[]);
    let mount = HungMount::on(&folder.path().join("m"), Read);
    let client = &mut with(server.client(), &["--timeout", "500ms"]);
    let finished = run(client.args(["/m/file"; 9]).arg("/small"));
    assert_eq!((finished.code(), &finished.stdout[..]), (Some(1), &b"small"[..]));
    assert_eq!(finished.stderr.matches("timed out").count(), 3, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("left out").count(), 6, "{}", finished.stderr);
    drop(mount);
    server.wait_until_idle();
}

#[as_root_with_mounts]
fn a_server_stops_in_time_though_a_child_is_beyond_sigkill() {
    let folder = public_folder();
    let root = folder.path().join("root");
    let _mount = HungMount::on(&root, Read);
    let server = Server::start(&["--drain-timeout", "500ms", "--root", root.to_str().unwrap()]);
    server.wait_until_idle(); // a child cleans up at the start
    let client = Running::piped(server.client().args(["--retries", "0", "/file"]));
    let child = server.only_child();
    wait_until("it reads", || child.waits_in(libc::SYS_read));
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(child.lives());
    let output = client.finish();
    // The second, if a part of the answer has arrived.
    let reasons = ["the server died", "the file system does not answer"];
    assert!(reasons.iter().any(|reason| output.stderr.contains(reason)), "{output:?}");
}

#[as_root_with_mounts]
fn sigterm_ends_a_client_whose_destination_hangs() {
    let folder = public_folder();
    let _mount = HungMount::on(&folder.path().join("mount"), New);
    let server = Server::start(&["--root", "/proc/sys/kernel"]);
    let target = folder.path().join("mount/new");
    let client = Running::piped(server.client().arg("-o").arg(target).arg("/ostype"));
    let process = Process::with_pid(client.pid()).unwrap();
    wait_until("it makes its file", || process.waits_in(libc::SYS_openat));
    client.signal(Signal::SIGTERM);
    let ended = client.finish();
    assert_eq!((ended.code(), &*ended.stderr), (Some(130), "mqfs-client: interrupted\n"));
}

#[as_root_with_mounts]
fn a_server_whose_root_hangs_keeps_no_other_from_its_key() {
    let (folder, key) = (public_folder(), unique_key());
    let root = folder.path().join("root");
    let _mount = HungMount::on(&root, All);
    let hung = Running::piped(server_of(key).arg("--root").arg(&root));
    let process = Process::with_pid(hung.pid()).unwrap();
    wait_until("it looks at its root", || process.waits_in(libc::SYS_statx));
    Server::start_on(key, &["--root", "/etc"]).stop();
    hung.signal(Signal::SIGTERM);
    let ended = hung.finish();
    assert_eq!((ended.status.signal(), &*ended.stderr), (Some(libc::SIGTERM), ""));
}

#[as_root_with_mounts]
fn process_that_hangs_in_execve_holds_nobody_up_and_counts_as_alive() {
    let (started, folder) = (Instant::now(), public_folder());
    let mount = HungMount::on(&folder.path().join("hung"), Close);
    let file = folder.path().join("hung/file");
    let server = Server::start(&["--reap-interval", "100ms"]);
    let by_the_dead = used_by_the_dead(foreign());
    // Only this child opens the file, which execve then closes.
    let hung = fork_child(|| {
        marked_with(&lease::new(QueueId::new(0)).unwrap().encode()).release();
        let _file = File::open(&file).unwrap();
        let _ = execv(c"/bin/true", &[c"true"]);
        exit_now(1)
    });
    let hung = hung.unwrap();
    let mut wchan = Command::new("timeout");
    wchan.args(["-s", "KILL", "0.3", "cat"]).arg(format!("/proc/{hung}/wchan"));
    wait_until("it hangs, and so does who reads it", || run(&mut wchan).code() != Some(0));

    let [queue] = reply_queues()[..] else { panic!("{:?}", reply_queues()) };
    let orphan = leased(dead_owner());
    wait_until("the server's housekeeping goes on", || !exists(*orphan));
    let verdicts = Verdicts::with(&["--foreign"]);
    assert_eq!(verdicts.on(queue), ["alive", "a process has the owner's pid", "kept"]);
    let waits = ["foreign", "not made by mqfs, and a process may wait on it", "kept"];
    assert_eq!(verdicts.on(*by_the_dead), waits);
    run(&mut stat_of(server.key)).success();
    let watch = Running::piped(program("mqfs-reap").args(["--watch", "100ms", "--foreign"]));
    let orphan = leased(dead_owner());
    wait_until("it goes on, too", || !exists(*orphan));
    watch.signal(Signal::SIGTERM);
    assert_eq!(watch.finish().code(), Some(0));
    // Sooner than the mount ends by itself, which would let everybody go.
    assert!(started.elapsed() < Duration::from_secs(100));

    kill(hung, Signal::SIGKILL).unwrap();
    drop(mount); // FUSE lets no process go whose request it has read, however it is killed.
    waitpid(hung, None).unwrap();
    wait_until("the dead owner's queue is removed", || !exists(queue));
}
