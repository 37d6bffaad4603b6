//! Seeded doubles of the machine, for tests and for the simulation.
//!
//! Everything they decide comes from their seed, so a failing run can be run again. [`SimFs`] outlives the node that uses it:
//! build a second environment on it with [`env_on`], and the node has restarted. A network is the simulation's own (turmoil);
//! the one here refuses, so that a unit test notices when it would have used it.

mod clock;
mod fs;
mod net;
mod random;
mod tasks;

use std::sync::Arc;

use placement_types::Env;

pub use clock::SimClock;
pub use fs::{Fault, FaultKind, SimFs};
pub use net::RefusingNet;
pub use random::SimRandom;
pub use tasks::SimTasks;

/// What a test holds to disturb the environment it made.
#[derive(Clone)]
pub struct SimControls {
    pub fs: SimFs,
    pub clock: SimClock,
}

/// A machine with an empty disk.
pub fn env(seed: u64) -> (Env, SimControls) {
    env_on(&SimFs::new(seed), seed)
}

/// A machine that finds `fs` as its predecessor left it.
pub fn env_on(fs: &SimFs, seed: u64) -> (Env, SimControls) {
    let controls = SimControls { fs: fs.clone(), clock: SimClock::new() };
    let env = Env {
        clock: Arc::new(controls.clock.clone()),
        random: Arc::new(SimRandom::new(seed)),
        net: Arc::new(RefusingNet),
        fs: Arc::new(fs.clone()),
        tasks: Arc::new(SimTasks),
        watcher: None,
    };
    (env, controls)
}
