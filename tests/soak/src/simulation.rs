//! Simulated schedules, and chapters of the matrix of crashes: each seed in a process of its own, so that it can be repeated exactly.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests_sim::Chapter;
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
    pub fn run(&self, seed: u64, chapter: Option<&Chapter>) -> anyhow::Result<Told> {
        let mut program = Command::new(&self.program);
        program.args([SUBCOMMAND, &seed.to_string()]).args(chapter.map(|chapter| chapter.name));
        Ok(child::run(&mut program, &self.library)?)
    }
}
