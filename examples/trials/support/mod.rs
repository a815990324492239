//! What the trials share: a place to work in, the programs, processes seen through /proc, chance,
//! and a report.

mod namespace;
mod process;
mod programs;
mod random;
mod report;
mod server;
mod site;

use std::thread;
use std::time::{Duration, Instant};

pub use namespace::{Namespace, lease_of, queues_of};
pub use process::{
    Process, anonymous_kib, bytes_read, bytes_written, children_of, descriptors, virtual_kib,
    zombies_of,
};
pub use programs::Programs;
pub use random::{Random, noise, size, write_noise};
pub use report::Report;
pub use server::Server;
pub use site::{Site, end_of, go_on};

/// How long anything may take that has no time of its own.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition; whether it came true in time.
pub fn wait_for(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= timeout {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
