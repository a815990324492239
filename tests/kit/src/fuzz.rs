//! Fuzzing with proptest: how long, and how to repeat a failure.

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// Checks so many cases, or `MQFS_FUZZ_TIMES` as many. Shrinks and reports the first that fails. It
/// keeps nothing for the next run: write a test of its own for a case that is worth keeping.
pub fn fuzz<S: Strategy>(
    test: &str,
    cases: u32,
    strategy: &S,
    check: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let times = std::env::var("MQFS_FUZZ_TIMES");
    let times = times.map_or(1, |times| times.parse().expect("MQFS_FUZZ_TIMES is a number"));
    let config = ProptestConfig::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => getrandom::u64().unwrap(),
    };
    let config = ProptestConfig {
        cases: cases.saturating_mul(times),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..config
    };
    if let Err(error) = TestRunner::new(config).run(strategy, check) {
        let again = format!("PROPTEST_RNG_SEED={seed} MQFS_FUZZ_TIMES={times} cargo test");
        panic!("{error}\nonce more: {again} {test}");
    }
}
