//! One request at a time, of several kinds in turns: each kind meets the same moments.

use std::time::Instant;

use super::source;
use crate::spread::median;

/// Prints the median time of each kind, in microseconds, on one line.
pub(super) fn main(arguments: &[String]) {
    let (rounds, kinds) = arguments.split_first().expect("turns ROUNDS SOURCE…");
    let mut kinds: Vec<_> = kinds.iter().map(|kind| source::parse(kind)).collect();
    let mut times = vec![Vec::new(); kinds.len()];
    for _ in 0..rounds.parse().expect("a number") {
        for (kind, times) in kinds.iter_mut().zip(&mut times) {
            let start = Instant::now();
            kind();
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let medians: Vec<_> = times.into_iter().map(|times| median(times).to_string()).collect();
    println!("{}", medians.join(" "));
}
