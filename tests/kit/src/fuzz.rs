//! Fuzzing: checks random cases until they made enough inputs, and says how to repeat a failure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// A fuzzing test, and the least number of inputs in a run of usual length.
#[derive(Debug)]
pub struct Target {
    /// The test's name, or a unique part of it.
    pub name: &'static str,
    pub inputs: u64,
}

impl Target {
    /// Checks cases until they made enough inputs. Shrinks and reports the first that fails. It keeps
    /// nothing for the next run: write a test of its own for a case that is worth keeping.
    pub fn run<S: Strategy>(
        &self,
        cases: &S,
        check: impl Fn(&S::Value, &Tally) -> Result<(), TestCaseError>,
    ) -> Tally {
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
        while tally.inputs() < goal {
            let case = cases.new_tree(&mut runner).unwrap();
            if let Err(error) = runner.run_one(case, |case| check(&case, &tally)) {
                let again = format!("PROPTEST_RNG_SEED={seed} MQFS_FUZZ_TIMES={times} cargo test");
                panic!("{error}\nonce more: {again} {}", self.name);
            }
        }
        let (inputs, seconds) = (tally.inputs(), start.elapsed().as_secs_f32());
        eprintln!("{}: {inputs} inputs in {seconds:.1} s, seed {seed}\n  {tally:?}", self.name);
        tally
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

    /// Checks that every outcome came up: inputs that all fail the first check prove little.
    #[track_caller]
    pub fn assert_seen(&self, expected: &[&str]) {
        for seen in expected {
            let count = self.0.borrow().get(seen).copied().unwrap_or(0);
            assert!(count >= 100, "{count} inputs came to {seen:?}: {self:?}");
        }
    }
}
