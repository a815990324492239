//! `mqfs-reap --watch`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::getpid;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Select};

use crate::support::{
    ForEverybody, Running, SOMEBODY, as_root_in_own_namespace, by, dead_owner, exists, give,
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

fn next_line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

#[as_root_in_own_namespace]
fn watch_prints_one_line_for_each_orphan_at_once() {
    let alive = leased(owner_of(getpid().as_raw()));
    for (options, action) in [(&[][..], "removed"), (&["-n"], "would remove"), (&["--json"], "")] {
        let arguments = [options, &["--watch", "100ms"]].concat();
        let mut running = Running::start(&mut watch(&arguments));
        let mut output = BufReader::new(running.child().stdout.take().unwrap());
        asleep(&running);
        let mut orphans = Vec::new(); // with -n, each pass finds the first again
        for _ in 0..2 {
            let orphan = leased(dead_owner());
            let line = next_line(&mut output);
            let (id, mut time) = (orphan.id().get(), line.split(' ').next().unwrap().to_owned());
            if action.is_empty() {
                let row: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!((&row["id"], &row["action"]), (&id.into(), &"removed".into()));
                time = row["time"].as_str().unwrap().to_owned();
            } else {
                let expected = format!("{time} queue {id}: {action}: owner is gone (");
                assert!(line.starts_with(&expected), "{line}");
            }
            assert!(time.ends_with('Z') && time.contains('T'), "{line}");
            assert_eq!(exists(*orphan), options == ["-n"]);
            orphans.push(orphan);
        }
        running.signal(Signal::SIGTERM);
        assert_eq!(next_line(&mut output), "");
        let finished = running.finish();
        assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
        assert!(exists(*alive));
    }
}

#[as_root_in_own_namespace]
fn every_signal_and_a_closed_output_end_watch_at_once() {
    for signal in [Some(Signal::SIGINT), Some(Signal::SIGTERM), Some(Signal::SIGHUP), None] {
        let mut running = Running::start(&mut watch(&["--watch", "1h"]));
        asleep(&running);
        let told = Instant::now();
        match signal {
            Some(signal) => running.signal(signal),
            None => drop(running.child().stdout.take()),
        }
        let finished = running.finish();
        assert!(told.elapsed() < Duration::from_secs(10), "{signal:?}: {:?}", told.elapsed());
        let code = if signal.is_some() { 0 } else { 141 };
        assert_eq!((finished.code(), &*finished.stderr), (Some(code), ""), "{signal:?}");
        assert!(finished.stdout.is_empty(), "nothing was done");
    }
}

#[as_root_in_own_namespace]
fn watch_goes_on_after_a_stop_and_under_nohup() {
    let mut nohup = by(&["nohup"], program("mqfs-reap").args(["--watch", "100ms"]));
    let mut running = Running::start(nohup.stdout(Stdio::piped()).stderr(Stdio::null()));
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
}

#[as_root_in_own_namespace]
fn watch_goes_on_when_its_output_cannot_be_written() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut running = Running::start(watch(&["--watch", "100ms"]).stdout(full));
    for _ in 0..2 {
        let orphan = leased(dead_owner());
        wait_until("it is at work", || !exists(*orphan));
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(0));
    let stderr = running.finish().stderr;
    assert!(
        stderr.contains("mqfs-reap: cannot write standard output: No space left on device"),
        "{stderr}"
    );
}

#[as_root_in_own_namespace]
fn watch_reports_each_orphan_that_it_may_not_remove_once() {
    let message = MessageType::new(1).unwrap();
    let roots = OwnedQueue::private(Mode::new(0o600)).unwrap();
    in_dead_process(|| {
        roots.try_send(&MessageBuffer::with_text(message, b"")).unwrap();
        roots.try_receive(&mut MessageBuffer::with_capacity(8), Select::Any).unwrap();
    });
    let programs = ForEverybody::new();
    let mut command = programs.program("mqfs-reap", SOMEBODY);
    command.args(["--foreign", "--older-than", "1ms", "--watch", "100ms"]);
    let mut running = Running::piped(&mut command);
    let mut output = BufReader::new(running.child().stdout.take().unwrap());
    let mut line = || next_line(&mut output);
    let first = line();
    assert!(first.contains(&format!("queue {}: not permitted: ", roots.id())), "{first}");
    // An orphan that it may remove, in a later pass, which finds the first one again.
    let theirs = leased(dead_owner());
    give(*theirs, SOMEBODY);
    let second = line();
    assert!(second.contains(&format!("queue {}: removed: ", theirs.id())), "{second}");
    running.signal(Signal::SIGTERM);
    assert_eq!(line(), "");
    assert_eq!(running.wait().code(), Some(0));
}
