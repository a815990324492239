//! Closed-loop clients, a process each: one asks again as soon as it has its answer.

use std::io::{Read, Write, pipe};
use std::time::{Duration, Instant};

use mqfs::sys::exit_now;
use mqfs_kit::fork_child;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;

use super::source;

/// How long they ask before they are counted.
const WARMUP: Duration = Duration::from_millis(50);

/// Prints how many requests were answered within the window, all clients together.
pub(super) fn main(arguments: &[String]) {
    let [clients, window, source] = arguments else { panic!("clients N WINDOW_MS SOURCE") };
    let clients: usize = clients.parse().expect("a number");
    let window = Duration::from_millis(window.parse().expect("milliseconds"));
    let (start, mut starter) = pipe().expect("a pipe");
    let (mut results, result) = pipe().expect("a pipe");
    let client = || {
        let mut ask = source::parse(source);
        let (mut start, mut result) = (&start, &result);
        start.read_exact(&mut [0]).expect("the parent writes");
        let count = ask_for(&mut *ask, window);
        result.write_all(&count.to_ne_bytes()).expect("the parent reads");
        exit_now(0)
    };
    let pids: Vec<_> = (0..clients).map(|_| fork_child(client).expect("a child")).collect();
    drop(result);
    // Let them start once all of them are there.
    starter.write_all(&vec![0; clients]).expect("the clients read");
    let mut total = 0;
    for _ in 0..clients {
        let mut count = [0; 8];
        if results.read_exact(&mut count).is_err() {
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL);
            }
            panic!("a client failed");
        }
        total += u64::from_ne_bytes(count);
    }
    for pid in pids {
        waitpid(pid, None).expect("our child");
    }
    println!("{total}");
}

/// How many answers came within the window.
fn ask_for(ask: &mut dyn FnMut() -> u64, window: Duration) -> u64 {
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
