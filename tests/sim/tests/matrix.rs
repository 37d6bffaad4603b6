//! A process dies at every point of every operation, and everything holds: the chapters of `tests/sim/src/matrix.rs`, each with one
//! seed; the soak tries others. `SIM_CASE="CHAPTER SEED" cargo test -p tests-sim --test matrix chosen -- --nocapture` repeats
//! one exactly.
#![allow(clippy::disallowed_methods)]

use std::env;
use std::path::Path;

use tests_sim::{CHAPTERS, Chapter, child, simulate_chapter};

macro_rules! chapters {
    ($($test:ident $name:literal,)*) => {
        $(#[test]
        fn $test() {
            run(concat!($name, " 1"));
        })*

        #[test]
        fn every_chapter_is_tested() {
            assert_eq!(CHAPTERS.iter().map(|chapter| chapter.name).collect::<Vec<_>>(), [$($name),*]);
        }
    };
}

chapters! {
    a_put_bears_every_death "put",
    a_multipart_upload_bears_every_death "multipart",
    a_delete_and_what_it_leaves_bear_every_death "delete",
    a_repair_bears_every_death "repair",
    a_shard_that_moves_bears_every_death "move",
}

/// The chapter and seed of `SIM_CASE`, to look at a failure again.
#[test]
fn chosen_case_holds() {
    if let Ok(what) = env::var("SIM_CASE") {
        run(&what).iter().for_each(|line| println!("{line}"));
    }
}

/// What [`run`] starts in a process of its own; nothing without it.
#[test]
fn the_simulation_itself() {
    if let Ok(what) = env::var(child::CHILD) {
        let (name, seed) = what.split_once(' ').expect("a chapter and a seed");
        let chapter = Chapter::named(name).expect("a chapter of the matrix");
        child::tell(simulate_chapter(chapter, seed.parse().expect("a seed is a number")));
    }
}

fn run(what: &str) -> Vec<String> {
    child::run_test(what, Path::new(env!("CARGO_TARGET_TMPDIR")))
}
