//! The arguments of `dozo admin plan` and `dozo admin apply`.

use std::slice;

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
    /// Write new chunks with another k+m, and code the old ones anew in the background
    Profile {
        /// Without it, what suits the disks in use
        #[arg(value_name = "K+M")]
        profile: Option<String>,
    },
}

/// A weight in bytes; `None`: by capacity.
#[derive(Debug, Clone, Copy)]
struct Weight(Option<u64>);

impl LayoutArgs {
    /// The change as the admin listener takes it.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let (op, targets) = self.change.operation();
        let mut query = vec![("op", op.to_owned()), ("targets", targets.join(","))];
        match &self.change {
            LayoutCommand::Weigh { weight, .. } => query.extend(weight.0.map(|bytes| ("weight_bytes", bytes.to_string()))),
            LayoutCommand::Profile { profile } => query.extend(profile.clone().map(|profile| ("profile", profile))),
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
        let (op, targets) = self.change.operation();
        let value = match &self.change {
            LayoutCommand::Weigh { weight, .. } => Some(weight.0.map_or("capacity".to_owned(), |bytes| bytes.to_string())),
            LayoutCommand::Profile { profile } => profile.clone(),
            LayoutCommand::TakeIn { .. }
            | LayoutCommand::Drain { .. }
            | LayoutCommand::Keep { .. }
            | LayoutCommand::RemoveDisk { .. }
            | LayoutCommand::RemoveNode { .. } => None,
        };
        let words = [op].into_iter().chain(targets.iter().map(String::as_str)).chain(value.as_deref());
        words.collect::<Vec<_>>().join(" ")
    }
}

impl LayoutCommand {
    /// The name of the operation, the same here and for the admin listener, and what it is about.
    fn operation(&self) -> (&'static str, &[String]) {
        match self {
            LayoutCommand::TakeIn { targets } => ("take-in", targets),
            LayoutCommand::Drain { targets } => ("drain", targets),
            LayoutCommand::Keep { targets } => ("keep", targets),
            LayoutCommand::Weigh { target, .. } => ("weigh", slice::from_ref(target)),
            LayoutCommand::RemoveDisk { targets } => ("remove-disk", targets),
            LayoutCommand::RemoveNode { target } => ("remove-node", slice::from_ref(target)),
            LayoutCommand::Profile { .. } => ("profile", &[]),
        }
    }
}

fn parse_weight(text: &str) -> Result<Weight, String> {
    if text == "capacity" {
        return Ok(Weight(None));
    }
    parse_bytes(text).map(|bytes| Weight(Some(bytes)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        layout: LayoutArgs,
    }

    /// What is shown to be typed asks for the same again.
    #[track_caller]
    fn check(words: &str, query: &[(&str, &str)]) {
        let layout = Cli::try_parse_from(["plan"].into_iter().chain(words.split(' '))).unwrap().layout;
        assert_eq!(layout.words(), words);
        let owned: Vec<(&str, String)> = query.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(layout.query(), owned);
    }

    #[test]
    fn a_change_is_shown_as_it_is_given() {
        check("take-in", &[("op", "take-in"), ("targets", "")]);
        check("drain a1 b2", &[("op", "drain"), ("targets", "a1,b2")]);
        check("keep a1", &[("op", "keep"), ("targets", "a1")]);
        check("weigh a1 4096", &[("op", "weigh"), ("targets", "a1"), ("weight_bytes", "4096")]);
        check("weigh a1 capacity", &[("op", "weigh"), ("targets", "a1")]);
        check("remove-disk a1 b2", &[("op", "remove-disk"), ("targets", "a1,b2")]);
        check("remove-node c3", &[("op", "remove-node"), ("targets", "c3")]);
        check("profile", &[("op", "profile"), ("targets", "")]);
        check("profile 4+2", &[("op", "profile"), ("targets", ""), ("profile", "4+2")]);
    }
}
