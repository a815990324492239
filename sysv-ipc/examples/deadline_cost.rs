//! Measures what waiting with a deadline costs, against waiting without one: how long after it was
//! sent a message is received, and how much CPU time the wait takes.
//!
//! `cargo run --release -p sysv-ipc --example deadline_cost`

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use sysv_ipc::{MessageBuffer, MessageType, Mode, OwnedQueue, Queue, ReceiveError, Select};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue = OwnedQueue::private(Mode::new(0o600))?;
    println!("| waited for | call | median | 99 % | CPU |");
    println!("| --- | --- | --- | --- | --- |");
    for (wait, rounds) in [(10, 2000), (100, 2000), (1000, 1000), (10_000, 200), (100_000, 40)] {
        let wait = Duration::from_micros(wait);
        let late = Instant::now() + Duration::from_secs(3600);
        report("receive", wait, rounds, *queue, |message| queue.receive(message, Select::Any))?;
        report("receive_until", wait, rounds, *queue, |message| {
            queue.receive_until(message, Select::Any, late)
        })?;
    }
    Ok(())
}

fn report(
    call: &str,
    wait: Duration,
    rounds: usize,
    queue: Queue,
    receive: impl Fn(&mut MessageBuffer) -> Result<(), ReceiveError>,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut message = MessageBuffer::with_capacity(16);
    let mut delays = Vec::with_capacity(rounds);
    let mut used = Duration::ZERO;
    for _ in 0..rounds {
        let sender = thread::spawn(move || {
            if wait < Duration::from_micros(1000) {
                let begun = Instant::now();
                while begun.elapsed() < wait {}
            } else {
                thread::sleep(wait);
            }
            let sent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(0);
            let mtype = MessageType::new(1).expect("positive");
            queue.send(&MessageBuffer::with_text(mtype, &sent.to_ne_bytes()))
        });
        let before = cpu()?;
        receive(&mut message)?;
        let received = start.elapsed();
        used += cpu()? - before;
        let sent = Duration::from_nanos(u64::from_ne_bytes(message.text().try_into()?));
        delays.push(received.saturating_sub(sent));
        sender.join().expect("the sender does not panic")?;
    }
    delays.sort();
    let (median, most) = (delays[rounds / 2], delays[rounds * 99 / 100]);
    println!("| {wait:?} | {call} | {median:.1?} | {most:.1?} | {:.1?} |", used / rounds as u32);
    Ok(())
}

/// The CPU time of this thread.
fn cpu() -> Result<Duration, Box<dyn std::error::Error>> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}
