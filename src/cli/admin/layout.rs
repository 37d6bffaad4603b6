//! The arguments of `dozo admin plan` and `dozo admin apply`.

use clap::{Args, Subcommand};

use crate::cli::units::parse_bytes;

#[derive(Debug, Args)]
pub struct LayoutArgs {
    #[command(subcommand)]
    change: LayoutCommand,

    /// The layout the change was planned on: it is refused when another change came in between
    #[arg(long, global = true, value_name = "NUMBER")]
    layout: Option<u64>,

    /// Remove a disk although shards are still on it: what had too few others is lost
    #[arg(long, global = true)]
    force_lossy: bool,
}

/// Disks and nodes are named by id, or its beginning; a node also by its address. A node stands for its disks.
#[derive(Debug, Subcommand)]
enum LayoutCommand {
    /// Bring disks into use that wait for it; without a name, all of them
    TakeIn {
        #[arg(value_name = "DISK|NODE")]
        targets: Vec<String>,
    },
    /// Move everything off disks; they can be removed when that is done
    Drain {
        #[arg(value_name = "DISK|NODE", required = true)]
        targets: Vec<String>,
    },
    /// Take a draining back
    Keep {
        #[arg(value_name = "DISK|NODE", required = true)]
        targets: Vec<String>,
    },
    /// Let a disk take more or less than its capacity says
    Weigh {
        #[arg(value_name = "DISK")]
        target: String,
        /// A size such as 2TiB, or `capacity`
        #[arg(value_name = "SIZE", value_parser = parse_weight)]
        weight: Weight,
    },
    /// Take drained or dead disks out of the cluster, for good
    RemoveDisk {
        #[arg(value_name = "DISK|NODE", required = true)]
        targets: Vec<String>,
    },
    /// Take a node without disks out of the cluster, for good
    RemoveNode {
        #[arg(value_name = "NODE")]
        target: String,
    },
    /// Write new chunks with another k+m
    Profile {
        #[arg(value_name = "K+M")]
        profile: String,
    },
}

/// A weight in bytes; `None`: by capacity.
#[derive(Debug, Clone, Copy)]
struct Weight(Option<u64>);

impl LayoutArgs {
    /// The change as the admin listener takes it.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let (op, targets) = match &self.change {
            LayoutCommand::TakeIn { targets } => ("take-in", targets.join(",")),
            LayoutCommand::Drain { targets } => ("drain", targets.join(",")),
            LayoutCommand::Keep { targets } => ("keep", targets.join(",")),
            LayoutCommand::Weigh { target, .. } => ("weigh", target.clone()),
            LayoutCommand::RemoveDisk { targets } => ("remove-disk", targets.join(",")),
            LayoutCommand::RemoveNode { target } => ("remove-node", target.clone()),
            LayoutCommand::Profile { .. } => ("profile", String::new()),
        };
        let mut query = vec![("op", op.to_owned()), ("targets", targets)];
        match &self.change {
            LayoutCommand::Weigh { weight, .. } => query.extend(weight.0.map(|bytes| ("weight_bytes", bytes.to_string()))),
            LayoutCommand::Profile { profile } => query.push(("profile", profile.clone())),
            LayoutCommand::TakeIn { .. }
            | LayoutCommand::Drain { .. }
            | LayoutCommand::Keep { .. }
            | LayoutCommand::RemoveDisk { .. }
            | LayoutCommand::RemoveNode { .. } => {}
        }
        query.extend(self.layout.map(|layout| ("layout", layout.to_string())));
        if self.force_lossy {
            query.push(("force", "true".to_owned()));
        }
        query
    }

    /// The change as it was given, for showing how to apply it.
    pub fn words(&self) -> String {
        match &self.change {
            LayoutCommand::TakeIn { targets } => format!("take-in {}", targets.join(" ")).trim_end().to_owned(),
            LayoutCommand::Drain { targets } => format!("drain {}", targets.join(" ")),
            LayoutCommand::Keep { targets } => format!("keep {}", targets.join(" ")),
            LayoutCommand::Weigh { target, weight: Weight(Some(bytes)) } => format!("weigh {target} {bytes}"),
            LayoutCommand::Weigh { target, weight: Weight(None) } => format!("weigh {target} capacity"),
            LayoutCommand::RemoveDisk { targets } => format!("remove-disk {}", targets.join(" ")),
            LayoutCommand::RemoveNode { target } => format!("remove-node {target}"),
            LayoutCommand::Profile { profile } => format!("profile {profile}"),
        }
    }
}

fn parse_weight(text: &str) -> Result<Weight, String> {
    if text == "capacity" {
        return Ok(Weight(None));
    }
    parse_bytes(text).map(|bytes| Weight(Some(bytes)))
}
