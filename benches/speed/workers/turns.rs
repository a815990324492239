//! One request at a time, of several kinds in turns: each kind meets the same moments.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::source;
use crate::spread::median;

/// Prints the median time of each kind, in microseconds, on one line.
pub(super) fn main(arguments: &[String]) {
    let (rounds, kinds) = arguments.split_first().expect("turns ROUNDS SOURCE…");
    let mut kinds: Vec<_> = kinds.iter().map(|kind| kind_of(kind)).collect();
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

/// A source within this process, or `run:` and a command line without blanks in its words: the
/// whole life of a process.
fn kind_of(word: &str) -> source::Source {
    let Some(line) = word.strip_prefix("run:") else { return source::parse(word) };
    let mut words = line.split(' ').map(str::to_owned);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    Box::new(move || {
        let status = command.status().expect("the program starts");
        assert!(status.success(), "{command:?}: {status}");
        0
    })
}
