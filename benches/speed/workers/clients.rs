//! Clients that start at once, a process each: one asks again as soon as it has its answer.

use std::io::{Read, Write, pipe};
use std::time::{Duration, Instant};

use mqfs::sys::exit_now;
use mqfs_kit::fork_child;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;

use super::source::{self, Source};

/// How long they ask before they are counted.
const WARMUP: Duration = Duration::from_millis(50);

/// Prints how many requests were answered within the window, all clients together.
pub(super) fn main(arguments: &[String]) {
    let [clients, window, source] = arguments else { panic!("clients N WINDOW_MS SOURCE") };
    let window = Duration::from_millis(window.parse().expect("milliseconds"));
    println!("{}", at_once(clients, source, |ask| ask_for(ask, window)).0);
}

/// Prints the seconds from the start of all clients to the last one's end.
pub(super) fn crowd(arguments: &[String]) {
    let [clients, times, source] = arguments else { panic!("crowd N TIMES SOURCE") };
    let times: usize = times.parse().expect("a number");
    let ask_times = |ask: &mut Source| (0..times).map(|_| ask()).sum();
    println!("{}", at_once(clients, source, ask_times).1.as_secs_f64());
}

/// Runs the work in each of the clients, and gives the sum of the results and the time it took.
fn at_once(clients: &str, source: &str, work: impl Fn(&mut Source) -> u64) -> (u64, Duration) {
    let clients: usize = clients.parse().expect("a number");
    let (start, mut starter) = pipe().expect("a pipe");
    let (mut results, result) = pipe().expect("a pipe");
    let client = || {
        let mut ask = source::parse(source);
        let (mut start, mut result) = (&start, &result);
        start.read_exact(&mut [0]).expect("the parent writes");
        let outcome = work(&mut ask);
        drop(ask);
        result.write_all(&outcome.to_ne_bytes()).expect("the parent reads");
        exit_now(0)
    };
    let pids: Vec<_> = (0..clients).map(|_| fork_child(client).expect("a child")).collect();
    drop(result);
    let begin = Instant::now();
    // Let them start once all of them are there.
    starter.write_all(&vec![0; clients]).expect("the clients read");
    let mut total = 0;
    for _ in 0..clients {
        let mut outcome = [0; 8];
        if results.read_exact(&mut outcome).is_err() {
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL);
            }
            panic!("a client failed");
        }
        total += u64::from_ne_bytes(outcome);
    }
    let taken = begin.elapsed();
    for pid in pids {
        waitpid(pid, None).expect("our child");
    }
    (total, taken)
}

/// How many answers came within the window.
fn ask_for(ask: &mut Source, window: Duration) -> u64 {
    let begin = Instant::now() + WARMUP;
    let end = begin + window;
    let mut count = 0;
    loop {
        assert!(ask() > 0, "an empty file");
        let now = Instant::now();
        if now >= end {
            return count;
        }
        count += u64::from(now >= begin);
    }
}
