//! Seeds that must hold. A failure prints its seed and whole trace; `SIM_SEED=n` runs that seed in `chosen_seed_holds`.
#![allow(clippy::disallowed_methods)]

use std::hash::{BuildHasher as _, RandomState};

use tests_sim::{Plant, simulate, simulate_with};

/// The seed decides what happens to the cluster, and what its clients ask of it.
#[test]
fn one_seed_gives_one_plan() {
    let (first, second) = (simulate(7), simulate(7));
    assert_eq!(first.plan, second.plan);
    assert!(first.history.len() > 100, "only {} operations", first.history.len());
    first.assert_holds();
    second.assert_holds();
}

macro_rules! fixed_seeds {
    ($($name:ident $seed:literal,)*) => {
        $(#[test]
        fn $name() {
            simulate($seed).assert_holds();
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

/// The harness finds what it is there to find: a power cut on disks that lie costs acknowledged data, or a node that cannot
/// start any more.
#[test]
fn a_log_whose_fsync_lies_is_caught() {
    let report = simulate_with(3, Plant::LyingLog);
    println!("{:?}", report.failures);
    report.violations.iter().for_each(|violation| println!("{violation}"));
    assert!(!report.failures.is_empty() || !report.violations.is_empty(), "nothing was noticed");
}

/// Two seeds that nobody has tried before.
#[test]
fn random_seeds_hold() {
    for number in 0..2 {
        let seed = RandomState::new().hash_one(number);
        println!("seed {seed}");
        simulate(seed).assert_holds();
    }
}

/// The seed of `SIM_SEED`, to look at a failure again.
#[test]
fn chosen_seed_holds() {
    let Ok(text) = std::env::var("SIM_SEED") else { return };
    let seed = text.parse().expect("SIM_SEED is a number");
    let report = simulate(seed);
    for line in &report.trace {
        println!("{line}");
    }
    report.assert_holds();
}
