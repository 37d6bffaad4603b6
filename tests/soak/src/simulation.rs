//! Simulated schedules: each seed in a process of its own, so that it can be repeated exactly.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests_sim::child::{self, Told};

/// The subcommand of this program that simulates one seed.
pub const SUBCOMMAND: &str = "simulate";

pub struct Simulator {
    library: PathBuf,
    program: PathBuf,
}

impl Simulator {
    /// # Errors
    /// When this program does not know where it is.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { library: child::same_random(dir), program: std::env::current_exe()? })
    }

    /// # Errors
    /// When the process cannot be started.
    pub fn run(&self, seed: u64) -> anyhow::Result<Told> {
        Ok(child::run(Command::new(&self.program).args([SUBCOMMAND, &seed.to_string()]), &self.library)?)
    }
}
