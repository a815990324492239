//! Alive or dead, as `mqfs-reap` judges it: reused pids, zombies, threads, namespaces.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mqfs::sys::exit_now;
use mqfs::wire::OwnerId;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use crate::support::*;

const RUNNING: [&str; 3] = ["alive", "owner is running", "kept"];
const UNPROVEN: [&str; 3] = ["alive", "a process has the owner's pid", "kept"];
const ELSEWHERE: [&str; 3] = ["alive", "owner is in another pid namespace", "kept"];
const NOT_THERE: [&str; 3] = ["orphan", "owner is gone from its pid namespace", "removed"];

/// Whether processes of other pid namespaces can be judged here: not in a container with a pid
/// namespace of its own, where doubt means alive.
fn others_can_be_judged() -> bool {
    // PROC_PID_INIT_INO in linux/proc_ns.h.
    let can = fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == 0xEFFF_FFFC);
    if !can {
        eprintln!("not shown here: deaths in other pid namespaces");
    }
    can
}

/// What is said of an owner in another pid namespace, where that can be judged.
fn if_seen(verdict: [&'static str; 3]) -> [&'static str; 3] {
    if others_can_be_judged() { verdict } else { ELSEWHERE }
}

/// `unshare` options for a whole pid namespace.
const PID_NAMESPACE: [&str; 2] = ["--pid", "--mount-proc"];

/// What `mqfs-reap` says under `unshare` with these options.
fn verdicts_in(options: &[&str]) -> Verdicts {
    Verdicts::of(&mut unshared(options, program("mqfs-reap").arg("--json")))
}

#[as_root_in_own_namespace]
fn zombie_is_dead_and_an_owner_whose_pid_another_process_has() {
    let process = sleeper();
    let owner = owner_of(process.pid());
    let queue = leased(owner);
    assert_eq!(Verdicts::now().on(*queue), RUNNING);
    // Pids that are in fact used again: `tree::interrupted`, and `caller_groups`.
    let reused = leased(OwnerId { start_time: owner.start_time - 1, ..owner });
    let verdict = ["orphan", "owner is gone, its pid reused", "removed"];
    assert_eq!(Verdicts::now().on(*reused), verdict);
    process.signal(Signal::SIGKILL);
    wait_until("it is a zombie", || state_of(process.pid()) == Some('Z'));
    assert_eq!(Verdicts::now().on(*queue), ["orphan", "owner has ended", "removed"]);
}

#[as_root_in_own_namespace]
fn process_lives_while_any_of_its_threads_does() {
    let pid = process_without_main_thread();
    // Its main thread has no namespaces any more, but the pid namespace.
    let Process { pid: number, start_time } = Process::with_pid(pid.as_raw()).unwrap();
    let queue = leased(OwnerId { pid: number, start_time, ..owner_of(getpid().as_raw()) });
    let verdict = Verdicts::now();
    kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(verdict.on(*queue), RUNNING);
    waitpid(pid, None).unwrap();
    assert_eq!(Verdicts::now().on(*queue), ["orphan", "owner is gone", "removed"]);
}

/// A process whose main thread is a zombie, and whose other thread sleeps.
#[allow(unsafe_code)]
fn process_without_main_thread() -> Pid {
    let child = fork_child(|| {
        close_inherited();
        std::thread::spawn(|| {
            std::thread::sleep(crate::support::DEADLINE);
            exit_now(0)
        });
        // SAFETY: ends the calling thread alone, which holds nothing; exit(2), unlike
        // exit_group(2).
        let _ = unsafe { libc::syscall(libc::SYS_exit, 0) };
        exit_now(1)
    });
    let pid = child.unwrap();
    wait_until("the main thread ends", || state_of(pid.as_raw()) == Some('Z'));
    pid
}

#[as_root_in_own_namespace]
fn owner_missing_from_a_living_pid_namespace_is_dead_only_if_seen_from_the_initial_one() {
    let outer = Running::start(&mut unshared(&PID_NAMESPACE, Command::new("sleep").arg("1000")));
    let mut inner = vec![];
    wait_until("the namespace is there", || {
        inner = children_of(outer.pid());
        inner.first().is_some_and(|pid| {
            fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"sleep\n")
        })
    });
    let first = owner_of(inner[0]);
    assert_eq!(first.pid, 1);
    let living = leased(first);
    let missing = leased(OwnerId { pid: 4711, ..first });
    let reborn = leased(OwnerId { start_time: first.start_time - 1, ..first });
    let untold = leased(OwnerId { start_time: 0, ..first });

    let elsewhere = verdicts_in(&PID_NAMESPACE);
    for queue in [&living, &missing, &reborn, &untold] {
        assert_eq!(elsewhere.on(**queue), ELSEWHERE);
    }
    let here = Verdicts::now();
    assert_eq!(here.on(*living), if_seen(RUNNING));
    assert_eq!(here.on(*untold), if_seen(UNPROVEN));
    assert_eq!(here.on(*missing), if_seen(NOT_THERE));
    assert_eq!(here.on(*reborn), if_seen(NOT_THERE));
    // As process 1 of its namespace it ignores SIGTERM, and unshare waits for it.
    kill(Pid::from_raw(inner[0]), Signal::SIGKILL).unwrap();
}

#[as_root_in_own_namespace]
fn with_another_namespaces_proc_no_living_owner_is_judged_dead() {
    let quiet = QuietServer::start();
    let before = reply_queues();
    // In the /proc that it sees, another process has the client's pid.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#""$1" -k "$2" /file | sleep 1000 & read go; exec "$3" --json"#, "sh"]);
    shell.arg(program("mqfs-client").get_program()).arg(quiet.server.key.to_string());
    shell.arg(program("mqfs-reap").get_program());
    let mut running = Running::piped(unshared(&["--pid"], &shell).stdin(Stdio::piped()));
    let queue = Stuck::find(&before);
    let stopped = quiet.stop_children();
    writeln!(running.child().stdin.take().unwrap(), "go").unwrap();

    assert_eq!(Verdicts::in_text(running.finish().success()).on(queue), UNPROVEN);

    // It ended with its namespace.
    assert!(exists(queue));
    assert_eq!(Verdicts::now().on(queue), if_seen(NOT_THERE));
    let _ = queue.remove();
    drop(stopped);
    quiet.stop();
}

#[as_root_in_own_namespace]
fn start_times_are_not_compared_across_time_namespaces() {
    let later = ["--time", "--boottime", "100000"];
    let mut trial = unshared(&later, &Command::new("true"));
    if !trial.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: unshare makes no time namespace");
    }
    let quiet = QuietServer::start();
    let mut stuck = Stuck::start(&mut unshared(&later, &quiet.client()));
    let here = leased(owner_of(getpid().as_raw()));
    let stopped = quiet.stop_children();

    assert_eq!(Verdicts::now().on(stuck.queue), UNPROVEN);
    let there = verdicts_in(&later);
    assert_eq!(there.on(*here), UNPROVEN);
    // Both namespaces at once, as seen from the initial pid namespace.
    let both = ["--pid", "--mount-proc", "--time", "--boottime", "100000"];
    let other = Stuck::start(&mut unshared(&both, &quiet.client()));
    assert_eq!(Verdicts::now().on(other.queue), if_seen(UNPROVEN));
    let there = verdicts_in(&later);
    assert_eq!(there.on(other.queue), if_seen(UNPROVEN));

    let inner = Pid::from_raw(children_of(stuck.client.pid())[0]);
    kill(inner, Signal::SIGKILL).unwrap();
    stuck.client.wait();
    assert_eq!(Verdicts::now().on(stuck.queue), ["orphan", "owner is gone", "removed"]);
    drop(stopped);
    assert!(other.finish() == quiet.file);
    quiet.stop();
}

/// `mqfs-reap --json` behind a shell command that changes /proc for it alone.
fn reap_with_proc(script: &str, reaper: &Path) -> Verdicts {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{script} \"$0\" --json")).arg(reaper);
    Verdicts::of(&mut unshared(&["--mount"], &shell))
}

#[as_root_in_own_namespace]
fn what_a_reaper_cannot_see_it_does_not_judge_dead() {
    let here = owner_of(getpid().as_raw());
    // No process has the first one's pid in another namespace. The second is from a namespace
    // without any process.
    let (living, gone) = (leased(here), leased(OwnerId { pid_namespace: 1, ..here }));
    for options in [&PID_NAMESPACE[..], &["--pid"]] {
        let inside = verdicts_in(options);
        assert_eq!([inside.on(*living), inside.on(*gone)], [ELSEWHERE; 2], "{options:?}");
    }
    let programs = ForEverybody::new();
    let reaper = programs.path("mqfs-reap");
    let blind = reap_with_proc("mount -t tmpfs none /proc && exec", &reaper);
    assert_eq!(blind.on(*living), UNPROVEN);
    let hidepid = "mount -t proc -o hidepid=2 proc /proc && test -e /proc/1 && exec";
    assert_eq!(reap_with_proc(hidepid, &reaper).on(*gone), ELSEWHERE);
    give(*living, SOMEBODY).unwrap();
    let as_somebody = format!("setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups");
    let seen = reap_with_proc(&format!("{hidepid} {as_somebody}"), &reaper);
    assert_eq!(seen.on(*living), UNPROVEN);
    assert_eq!(Verdicts::now().on(*gone), if_seen(NOT_THERE));
}

/// A client without /proc, under `unshare` with these options, in the middle of a transfer.
fn client_without_proc(quiet: &QuietServer, options: &[&str]) -> Stuck {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"mount -t tmpfs none /proc && exec "$0" -k "$1" /file"#]);
    shell.arg(program("mqfs-client").get_program()).arg(quiet.server.key.to_string());
    Stuck::start(&mut unshared(&[&["--mount"], options].concat(), &shell))
}

#[as_root_in_own_namespace]
fn owner_that_made_its_lease_without_proc_is_proven_dead() {
    let quiet = QuietServer::start();
    for options in [&[][..], &["--pid"]] {
        let mut stuck = client_without_proc(&quiet, options);
        let stopped = quiet.stop_children();
        let can_be_judged = options.is_empty() || others_can_be_judged();
        let alive = if can_be_judged { UNPROVEN } else { ELSEWHERE };
        assert_eq!(Verdicts::now().on(stuck.queue), alive);
        stuck.client.kill();
        wait_until("the owner dies, too, with unshare", || {
            !can_be_judged || Verdicts::now().on(stuck.queue)[0] == "orphan"
        });
        assert_eq!(exists(stuck.queue), !can_be_judged);
        let _ = stuck.queue.remove();
        drop(stopped);
    }
    let mut stuck = client_without_proc(&quiet, &[]);
    stuck.client.kill();
    wait_until("its child notices, too", || !exists(stuck.queue));
    quiet.stop();
}

#[as_root_in_own_namespace]
fn owner_of_an_unknown_pid_namespace_is_dead_if_no_process_anywhere_has_its_pid() {
    // As an old kernel leaves it to a client without /proc.
    let unknown = |pid| OwnerId { pid, start_time: 0, pid_namespace: 0, time_namespace: 0 };
    let unidentified = ["alive", "owner not identified by its lease", "kept"];
    let dead = leased(unknown(dead_owner().pid));
    let living = leased(unknown(getpid().as_raw()));
    let _first = Running::start(&mut unshared(&PID_NAMESPACE, Command::new("sleep").arg("1000")));
    let first_elsewhere = leased(unknown(1));
    let elsewhere = verdicts_in(&PID_NAMESPACE);
    let here = Verdicts::now();
    for queue in [*living, *first_elsewhere] {
        assert_eq!(elsewhere.on(queue), unidentified);
        let unproven = if others_can_be_judged() { UNPROVEN } else { unidentified };
        assert_eq!(here.on(queue), unproven);
    }
    assert_eq!(elsewhere.on(*dead), unidentified);
    assert_eq!(here.on(*dead), if others_can_be_judged() { NOT_THERE } else { unidentified });
}
