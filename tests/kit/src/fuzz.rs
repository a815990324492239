//! Fuzzing: checks random cases until they made enough inputs, and says how to repeat a failure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// A fuzzing test.
#[derive(Debug)]
pub struct Target<'a> {
    /// The test's name, or a unique part of it.
    pub name: &'static str,
    /// The least number of inputs in a run of usual length.
    pub inputs: u64,
    /// The outcomes that must all come up: inputs that all fail the first check prove little.
    pub outcomes: &'a [&'static str],
}

/// The least number of inputs with each outcome.
const LEAST: u64 = 100;

/// How many times as many inputs as usual to try until the rarest outcome has come up. A case makes
/// a hundred inputs of about one outcome, so a rare one may be missing in a run of usual length.
const MOST_TIMES: u64 = 20;

impl Target<'_> {
    /// Checks cases until they made enough inputs, also of each outcome. Shrinks and reports the
    /// first that fails. It keeps nothing for the next run: write a test of its own for a case that
    /// is worth keeping.
    pub fn run<S: Strategy>(
        &self,
        cases: &S,
        check: impl Fn(&S::Value, &Tally) -> Result<(), TestCaseError>,
    ) {
        let times = times();
        let goal = self.inputs * times;
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let seed = match config.rng_seed {
            RngSeed::Fixed(seed) => seed,
            RngSeed::Random => getrandom::u64().unwrap(),
        };
        let mut runner =
            TestRunner::new(ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config });
        let (tally, start) = (Tally::default(), Instant::now());
        while tally.inputs() < goal
            || (tally.rarest(self.outcomes) < LEAST && tally.inputs() < goal * MOST_TIMES)
        {
            let case = cases.new_tree(&mut runner).unwrap();
            if let Err(error) = runner.run_one(case, |case| check(&case, &tally)) {
                let again = format!("PROPTEST_RNG_SEED={seed} MQFS_FUZZ_TIMES={times} cargo test");
                panic!("{error}\nonce more: {again} {}", self.name);
            }
        }
        let (inputs, seconds) = (tally.inputs(), start.elapsed().as_secs_f32());
        eprintln!("{}: {inputs} inputs in {seconds:.1} s, seed {seed}\n  {tally:?}", self.name);
        assert!(tally.rarest(self.outcomes) >= LEAST, "not all of {:?}: {tally:?}", self.outcomes);
    }
}

/// How many times as long as usual to run.
fn times() -> u64 {
    let times = std::env::var("MQFS_FUZZ_TIMES");
    times.map_or(1, |times| times.parse().expect("MQFS_FUZZ_TIMES is a number"))
}

/// How many inputs had which outcome.
#[derive(Default)]
pub struct Tally(RefCell<BTreeMap<&'static str, u64>>);

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().fmt(f)
    }
}

impl Tally {
    pub fn count(&self, seen: &'static str) {
        *self.0.borrow_mut().entry(seen).or_default() += 1;
    }

    pub fn inputs(&self) -> u64 {
        self.0.borrow().values().sum()
    }

    /// How many inputs had the rarest of these outcomes.
    fn rarest(&self, outcomes: &[&str]) -> u64 {
        let counts = self.0.borrow();
        let count = |outcome| counts.get(outcome).copied().unwrap_or(0);
        outcomes.iter().map(count).min().unwrap_or(LEAST)
    }
}
