//! Seeds that must hold. A failure prints its seed and its whole trace, and
//! `SIM_SEED=n cargo test -p tests-sim --test seeds chosen -- --nocapture` repeats it exactly.
//!
//! Each simulation is a process of its own, in which `same_random.c` takes the place of the operating system's randomness:
//! then the seed decides even what tokio decides.
#![allow(clippy::disallowed_methods)]

use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use tests_sim::{Plant, child, simulate, simulate_with};

/// The seed decides everything: what failed once can be looked at again.
#[test]
fn one_seed_gives_one_trace() {
    let (first, second) = (run(7), run(7));
    for (number, (left, right)) in first.iter().zip(&second).enumerate() {
        assert_eq!(left, right, "the traces part at line {number}");
    }
    assert_eq!(first.len(), second.len());
    assert!(first.len() > 500, "only {} lines", first.len());
    assert_ne!(first, run(8));
}

macro_rules! fixed_seeds {
    ($($name:ident $seed:literal,)*) => {
        $(#[test]
        fn $name() {
            run($seed);
        })*
    };
}

fixed_seeds! {
    seed_1_holds 1,
    seed_2_holds 2,
    seed_3_holds 3,
    seed_4_holds 4,
    seed_5_holds 5,
    seed_6_holds 6,
}

/// Two seeds that nobody has tried before.
#[test]
fn random_seeds_hold() {
    for number in 0..2 {
        run(RandomState::new().hash_one(number));
    }
}

/// The seed of `SIM_SEED`, to look at a failure again.
#[test]
fn chosen_seed_holds() {
    if let Ok(seed) = env::var("SIM_SEED") {
        for line in run(seed.parse().expect("SIM_SEED is a number")) {
            println!("{line}");
        }
    }
}

/// The harness finds what it is there to find: after a power cut of all nodes whose logs were never synced, either a node
/// refuses to start or acknowledged objects are gone.
#[test]
fn a_log_whose_fsync_lies_is_caught() {
    let report = simulate_with(3, Plant::LyingLog);
    assert!(!report.failures.is_empty() || !report.violations.is_empty(), "nothing was noticed");
}

/// What [`run`] starts in a process of its own; nothing without it.
#[test]
fn the_simulation_itself() {
    if let Ok(seed) = env::var(child::CHILD) {
        child::tell(simulate(seed.parse().expect("run() gives a number")));
    }
}

/// Simulates a seed that must hold, and returns its trace.
fn run(seed: u64) -> Vec<String> {
    child::run_test(&seed.to_string(), Path::new(env!("CARGO_TARGET_TMPDIR")))
}
