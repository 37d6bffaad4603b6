//! The machine itself: what production runs on.

mod clock;
mod fs;
mod net;
mod random;
mod sys;
mod tasks;

use std::sync::Arc;

use placement_types::Env;

pub(crate) use tasks::spawn_on_tokio;

/// The operating system's clock, generator, network and file system, and tokio's tasks. Spawning, sleeping and the network need
/// a running tokio runtime.
pub fn system() -> Env {
    Env {
        clock: Arc::new(clock::SystemClock::new()),
        random: Arc::new(random::SystemRandom),
        net: Arc::new(net::SystemNet),
        fs: Arc::new(fs::SystemFs),
        tasks: Arc::new(tasks::SystemTasks),
        watcher: None,
    }
}
