//! The command line: arguments to settings to a role.

mod admin;
mod bench;
mod config;
mod healthcheck;
mod logging;
mod server;
mod units;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Settings;

/// S3-compatible distributed object storage: one binary, from one laptop disk to an erasure-coded cluster.
#[derive(Debug, Parser)]
#[command(name = "dozo", version, max_term_width = 100)]
pub struct Cli {
    /// A TOML file with settings; the environment (`DOZO_...`) and flags win over it
    #[arg(long, global = true, env = "DOZO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: storage on the given directories, and the S3 gateway
    Server {
        /// Data directories, one for each disk
        #[arg(value_name = "DIR")]
        dirs: Vec<String>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Run a storage node of a cluster
    Node {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Run a stateless S3 gateway of a cluster
    Gateway {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Look into a running cluster
    Admin(admin::AdminArgs),
    /// Measure an S3 endpoint
    Bench(bench::BenchArgs),
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask a running process whether it is ready; for container images without a shell
    Healthcheck(healthcheck::HealthcheckArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the settings in effect, secrets redacted
    Show {
        #[command(flatten)]
        settings: Box<Settings>,
    },
}

/// Parses the arguments, runs the command, and turns its end into an exit code: 0 for success, 1 for an error (on standard
/// error), 2 for bad arguments.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = dispatch(cli);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dozo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let load = |flags: &Settings| Settings::load(cli.config.as_deref(), flags);
    match cli.command {
        Command::Server { dirs, settings } => {
            let mut flags = *settings;
            if !dirs.is_empty() {
                flags.data = dirs;
            }
            server::run(server::Role::Server, load(&flags)?)
        }
        Command::Node { settings } => server::run(server::Role::Node, load(&settings)?),
        Command::Gateway { settings } => server::run(server::Role::Gateway, load(&settings)?),
        Command::Admin(args) => admin::run(args, || load(&Settings::default())),
        Command::Bench(args) => bench::run(args, || load(&Settings::default())),
        Command::Config { command: ConfigCommand::Show { settings } } => config::show(&load(&settings)?),
        Command::Healthcheck(args) => healthcheck::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
