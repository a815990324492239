//! `mqfs-reap --watch`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::getpid;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Select};

use crate::support::{
    ForEverybody, Running, SOMEBODY, Verdicts, as_root_in_own_namespace, dead_owner, exists,
    in_dead_process, leased, owner_of, program, state_of, wait_until,
};

fn watch(arguments: &[&str]) -> Command {
    let mut command = program("mqfs-reap");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the end of its first pass.
fn asleep(running: &Running) {
    wait_until("it sleeps", || {
        let at = fs::read_to_string(format!("/proc/{}/wchan", running.pid()));
        state_of(running.pid()) == Some('S') && at.is_ok_and(|at| at.contains("poll"))
    });
}

/// Stops it as a service manager would. Returns the rest of its output.
#[track_caller]
fn terminate(running: Running) -> String {
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
    String::from_utf8(finished.stdout).unwrap()
}

#[test]
fn watch_removes_a_later_orphan_and_prints_one_line_at_once() {
    as_root_in_own_namespace(|| {
        let alive = leased(owner_of(getpid().as_raw()));
        let mut running = Running::start(&mut watch(&["--watch", "100ms"]));
        let mut output = BufReader::new(running.child().stdout.take().unwrap());
        asleep(&running);
        for _ in 0..2 {
            let orphan = leased(dead_owner());
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert!(!exists(*orphan));
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.ends_with('Z') && time.contains('T'), "{line}");
            let expected = format!("queue {}: removed: owner is gone (", orphan.id());
            assert!(rest.starts_with(&expected), "{line}");
        }
        running.signal(Signal::SIGTERM);
        let mut rest = String::new();
        assert_eq!(output.read_line(&mut rest).unwrap(), 0, "{rest}");
        assert_eq!(running.wait().code(), Some(0));
        assert!(exists(*alive));
    });
}

#[test]
fn watch_prints_one_json_object_per_line_with_the_time() {
    as_root_in_own_namespace(|| {
        let mut running = Running::start(&mut watch(&["--json", "--watch", "100ms"]));
        let mut output = BufReader::new(running.child().stdout.take().unwrap());
        let orphan = leased(dead_owner());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let row: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(row["id"], orphan.id().get());
        assert_eq!(row["action"], "removed");
        assert!(row["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!(terminate(running), "");
    });
}

#[test]
fn every_signal_ends_watch_at_once_with_status_0() {
    as_root_in_own_namespace(|| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let running = Running::start(&mut watch(&["--watch", "1h"]));
            asleep(&running);
            let told = Instant::now();
            running.signal(signal);
            let finished = running.finish();
            assert!(told.elapsed() < Duration::from_secs(10), "{signal}: {:?}", told.elapsed());
            assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""), "{signal}");
            assert!(finished.stdout.is_empty(), "nothing was done");
        }
    });
}

#[test]
fn watch_goes_on_after_a_stop_and_under_nohup() {
    as_root_in_own_namespace(|| {
        let mut nohup = Command::new("nohup");
        nohup.arg(program("mqfs-reap").get_program()).args(["--watch", "100ms"]);
        let mut running =
            Running::start(nohup.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let output = running.child().stdout.take().unwrap();
        asleep(&running);
        running.signal(Signal::SIGHUP);
        running.freeze();
        running.signal(Signal::SIGCONT);
        let orphan = leased(dead_owner());
        wait_until("it is still at work", || !exists(*orphan));
        running.signal(Signal::SIGINT);
        assert_eq!(running.wait().code(), Some(0));
        drop(output);
    });
}

#[test]
fn watch_ends_with_status_141_when_its_output_is_closed() {
    as_root_in_own_namespace(|| {
        let mut running = Running::start(&mut watch(&["--watch", "1h"]));
        asleep(&running);
        drop(running.child().stdout.take());
        let finished = running.finish();
        assert_eq!((finished.code(), &*finished.stderr), (Some(141), ""));
    });
}

#[test]
fn a_signal_ends_watch_while_its_output_blocks() {
    as_root_in_own_namespace(|| {
        let (reader, mut full) = std::io::pipe().unwrap();
        full.write_all(&vec![b'\n'; 65_536]).unwrap(); // the capacity of a pipe: pipe(7)
        let orphan = leased(dead_owner());
        let mut command = program("mqfs-reap");
        let mut running = Running::start(command.args(["--watch", "1h"]).stdout(full));
        wait_until("it has something to say", || !exists(*orphan));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().code(), Some(0));
        drop(reader);
    });
}

#[test]
fn watch_goes_on_when_its_output_cannot_be_written() {
    as_root_in_own_namespace(|| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut running = Running::start(watch(&["--watch", "100ms"]).stdout(full));
        for _ in 0..2 {
            let orphan = leased(dead_owner());
            wait_until("it is at work", || !exists(*orphan));
        }
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().code(), Some(0));
        let stderr = running.finish().stderr;
        assert!(stderr.contains("mqfs-reap: standard output: No space left on device"), "{stderr}");
    });
}

#[test]
fn watch_reports_each_orphan_that_it_may_not_remove_once() {
    as_root_in_own_namespace(|| {
        let message = MessageType::new(1).unwrap();
        let roots = OwnedQueue::private(Mode::new(0o600)).unwrap();
        in_dead_process(|| {
            roots.try_send(&MessageBuffer::with_text(message, b"")).unwrap();
            roots.try_receive(&mut MessageBuffer::with_capacity(8), Select::Any).unwrap();
        });
        let programs = ForEverybody::new();
        let mut command = programs.program("mqfs-reap", SOMEBODY);
        command.args(["--foreign", "--older-than", "1ms", "--watch", "100ms"]);
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut output = BufReader::new(running.child().stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line
        };
        let first = line();
        assert!(first.contains(&format!("queue {}: not permitted: ", roots.id())), "{first}");
        // An orphan that it may remove, in a later pass, which finds the first one again.
        let theirs = leased(dead_owner());
        let mut settings = theirs.status().unwrap().settings();
        settings.uid = sysv_ipc::Uid::from_raw(SOMEBODY);
        theirs.set(&settings).unwrap();
        let second = line();
        assert!(second.contains(&format!("queue {}: removed: ", theirs.id())), "{second}");
        running.signal(Signal::SIGTERM);
        assert_eq!(line(), "");
        assert_eq!(running.wait().code(), Some(0));
    });
}

#[test]
fn watch_with_dry_run_reports_each_orphan_once_and_removes_nothing() {
    as_root_in_own_namespace(|| {
        let first = leased(dead_owner());
        let mut running = Running::start(&mut watch(&["-n", "--watch", "100ms"]));
        let mut output = BufReader::new(running.child().stdout.take().unwrap());
        let mut next = |queue: &OwnedQueue| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert!(line.contains(&format!("queue {}: would remove: ", queue.id())), "{line}");
        };
        next(&first);
        let second = leased(dead_owner());
        next(&second);
        assert_eq!(terminate(running), "");
        assert_eq!(Verdicts::now().removed().len(), 2);
    });
}
