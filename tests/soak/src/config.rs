//! What a soak is told.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Runs faults against Dozo for as long as is asked: simulated schedules and clusters of real processes in turn. The last line
/// says what came of it.
#[derive(Debug, Parser)]
pub struct Config {
    /// How long to go on; what is under way then is brought to its end
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,

    /// Where all randomness comes from; drawn when it is not given
    #[arg(long)]
    pub seed: Option<u64>,

    /// Only one of the two
    #[arg(long, value_enum)]
    pub only: Option<Part>,

    /// Rounds of faults that one cluster of processes goes through
    #[arg(long, default_value_t = 8)]
    pub rounds: usize,

    /// Only these faults of real processes, in this order and nothing else, such as FlipBits,Turnover
    #[arg(long, value_delimiter = ',')]
    pub faults: Vec<String>,

    /// Where logs and histories of what went wrong are kept
    #[arg(long, default_value = "target/soak")]
    pub keep: PathBuf,

    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Simulated schedules
    Sim,
    /// Clusters of real processes
    Real,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Simulates one seed and tells what happened; what the soak starts for each schedule
    Simulate {
        seed: u64,
        /// A chapter of the matrix of crashes instead of a schedule of faults
        chapter: Option<String>,
    },
}
