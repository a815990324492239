//! How much CPU time other programs used while we measured.

use std::fs;
use std::thread::available_parallelism;
use std::time::Instant;

use mqfs_kit::ticks_per_second;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The CPU times at the moment from which on other programs are watched.
#[derive(Debug)]
pub(crate) struct Neighbours {
    since: Instant,
    busy: f64,
    ours: f64,
}

impl Neighbours {
    pub(crate) fn watch() -> Self {
        Self { since: Instant::now(), busy: busy(), ours: ours() }
    }

    /// The share of all cores' time that other programs took, from 0 to 1. All children of this
    /// process must have ended.
    pub(crate) fn share(&self) -> f64 {
        let cores = available_parallelism().map_or(1, usize::from);
        let theirs = (busy() - self.busy) - (ours() - self.ours);
        (theirs / self.since.elapsed().as_secs_f64() / cores as f64).clamp(0.0, 1.0)
    }
}

/// Seconds that any core was not idle, since boot: the first line of proc_stat(5).
fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let (idle, iowait) = (3, 4);
    let ticks: f64 = fields
        .enumerate()
        .filter(|&(i, _)| i != idle && i != iowait)
        .filter_map(|(_, ticks)| ticks.parse::<f64>().ok())
        .sum();
    ticks / ticks_per_second()
}

fn ours() -> f64 {
    cpu_of(UsageWho::RUSAGE_SELF) + cpu_of(UsageWho::RUSAGE_CHILDREN)
}

/// CPU seconds, user's and system's.
pub(crate) fn cpu_of(who: UsageWho) -> f64 {
    let usage = getrusage(who).expect("our own usage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    micros as f64 / 1e6
}
