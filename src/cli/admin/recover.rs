//! `dozo admin recover`: its arguments, and how reports and plans are shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use placement_map::recovery::{self, CopyReport, Drawn, Fate, LogPlace, NodeReport, NodeSteps, RecoveryPlan, Step};
use placement_types::{Env, GroupId, NodeId, Timestamp, TxnId};
use serde_json::{Value, json};

use super::print::print_json;
use crate::recover::{Applied, StoppedNode, read_plan, read_report, write_plan, write_report};
use crate::roles::rocks;

#[derive(Debug, Args)]
pub struct RecoverArgs {
    #[command(subcommand)]
    command: RecoverCommand,
}

#[derive(Debug, Subcommand)]
enum RecoverCommand {
    /// Show what the replicas on a stopped node have, and write it to a report
    Inspect {
        /// The first data directory of the node
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Where to write the report
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Decide from the reports of all nodes that are left who goes on with what; changes nothing
    Plan {
        /// The report of a node that is left; one for each of them
        #[arg(long = "report", value_name = "FILE", required = true)]
        reports: Vec<PathBuf>,
        /// A node that is gone for ever, by its id; it will be refused if it ever comes back
        #[arg(long = "gone", value_name = "NODE", required = true, value_delimiter = ',')]
        gone: Vec<NodeId>,
        /// Where to write the plan
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Apply a plan to a stopped node; to be done on every node that is left before any of them is started
    Apply {
        /// The first data directory of the node
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
        /// Really do it. What only the nodes that are gone had is lost then
        #[arg(long)]
        accept_loss: bool,
    },
}

/// How long a node that is said to be gone has for answering that it is not.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

pub async fn run(env: &Env, args: &RecoverArgs, as_json: bool) -> anyhow::Result<()> {
    match &args.command {
        RecoverCommand::Inspect { dir, out } => inspect(env, dir, out.as_deref(), as_json).await,
        RecoverCommand::Plan { reports, gone, out } => plan(env, reports, gone, out.as_deref(), as_json).await,
        RecoverCommand::Apply { dir, plan, accept_loss } => apply(env, dir, plan, *accept_loss, as_json).await,
    }
}

async fn inspect(env: &Env, dir: &Path, out: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let report = StoppedNode::open(env, dir, &rocks()).await?.report()?;
    if let Some(out) = out {
        write_report(env, out, &report)?;
    }
    if as_json { print_json(&report_json(&report)) } else { print_report(&report) }
}

async fn plan(env: &Env, files: &[PathBuf], gone: &[NodeId], out: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let reports = files.iter().map(|file| read_report(env, file)).collect::<anyhow::Result<Vec<NodeReport>>>()?;
    let gone: BTreeSet<NodeId> = gone.iter().copied().collect();
    let drawn = Drawn { incarnation: env.random_u64() as u32 | 1, txn: TxnId::random(env), time: env.now() };
    let plan = recovery::plan(&reports, &gone, drawn).context("there is no plan")?;
    for node in &plan.gone {
        if let Ok(Ok(_)) = env.timeout(ANSWER_DEADLINE, env.net.connect(&node.address)).await {
            bail!("node {} is said to be gone, but {} answers: stop it for ever first", node.node, node.address);
        }
    }
    if let Some(out) = out {
        write_plan(env, out, &plan)?;
    }
    if as_json {
        return print_json(&plan_json(&plan));
    }
    print_plan(&plan);
    match out {
        Some(out) => {
            println!("on every node named above, while all are stopped:");
            println!("  dozo admin recover apply DIR --plan {} --accept-loss", out.display());
        }
        None => println!("nothing was written: give --out FILE for a plan that can be applied"),
    }
    Ok(())
}

async fn apply(env: &Env, dir: &Path, file: &Path, accept_loss: bool, as_json: bool) -> anyhow::Result<()> {
    let plan = read_plan(env, file)?;
    let mut node = StoppedNode::open(env, dir, &rocks()).await?;
    let steps = node.check(&plan)?.clone();
    let applied = if accept_loss { Some(node.apply(&plan)?) } else { None };
    let outcome = match applied {
        None => "nothing was changed: give --accept-loss to do it",
        Some(Applied::Already) => "this plan has been applied to the node before: nothing is left to do",
        Some(Applied::Done) => "done. When every node of the plan is done, start them",
    };
    if as_json {
        let mut shown = steps_json(&steps);
        shown["incarnation"] = plan.incarnation.to_string().into();
        shown["applied"] = applied.is_some().into();
        return print_json(&shown);
    }
    println!("node {} goes on in incarnation {} of cluster {}:", node.node(), plan.incarnation, plan.cluster);
    print_steps(&steps);
    println!("{outcome}");
    Ok(())
}

fn print_report(report: &NodeReport) -> anyhow::Result<()> {
    println!("node {}  replica {}  cluster {}  incarnation {}", report.node, report.replica, report.cluster, report.incarnation);
    println!(
        "{:<8}{:>8}{:>14}{:>12}{:>12}  {:<26}members",
        "group", "term", "last entry", "committed", "applied", "newest write"
    );
    for replica in &report.replicas {
        let members: Vec<String> = replica.voters.iter().map(ToString::to_string).collect();
        println!(
            "{:<8}{:>8}{:>14}{:>12}{:>12}  {:<26}{}{}",
            replica.group.0,
            replica.last.term,
            replica.last.index,
            replica.committed,
            replica.applied,
            time(replica.newest),
            if members.is_empty() { "none: it has only heard of the group".to_owned() } else { members.join(" ") },
            if replica.members_open { " (a change of them is open)" } else { "" }
        );
    }
    match &report.copy {
        Some(copy) => println!("copy of the system group: {}", copy_text(copy)),
        None => println!("copy of the system group: none"),
    }
    Ok(())
}

fn copy_text(copy: &CopyReport) -> String {
    format!("epoch {}, up to entry {}, taken {}", copy.known.epoch, copy.place.index, time(Some(copy.taken)))
}

fn print_plan(plan: &RecoveryPlan) {
    println!("cluster {} goes from incarnation {} to {}", plan.cluster, plan.before, plan.incarnation);
    for node in &plan.gone {
        println!("gone for ever: node {} ({}), with its disks; it is refused if it comes back", node.node, node.address);
    }
    for (group, fate) in &plan.fates {
        println!("{}: {}", group_text(*group), fate_text(fate));
    }
    for steps in &plan.nodes {
        println!("node {}:", steps.node);
        print_steps(steps);
    }
    println!("shards on the disks that are left stay as they are.");
}

fn group_text(group: GroupId) -> String {
    if group == GroupId::SYSTEM { "system group".to_owned() } else { format!("metadata group {group}") }
}

fn fate_text(fate: &Fate) -> String {
    match fate {
        Fate::Whole {} => "a majority is left, nothing is lost".to_owned(),
        Fate::Alone { node, last, newest } => format!(
            "goes on from the replica of node {node}, which ends at entry {} of term {}, newest write {}; acknowledged writes that \
             came after it, if there were any, are lost",
            last.index,
            last.term,
            time(*newest)
        ),
        Fate::Founded { node, copied, epoch, taken } => format!(
            "begins anew from the copy on node {node} of epoch {epoch}, up to entry {}, taken {}; what was changed since, such as \
             buckets made, is lost",
            copied.index,
            time(Some(*taken))
        ),
        Fate::Lost {} => "no replica is left: its share of all names and their metadata is lost for ever, and requests for them \
                          will fail; shards of their data remain on the disks untouched"
            .to_owned(),
    }
}

fn print_steps(steps: &NodeSteps) {
    for step in &steps.steps {
        println!("  {}", step_text(step));
    }
    if steps.steps.is_empty() {
        println!("  its replicas stay as they are");
    }
}

fn step_text(step: &Step) -> String {
    match step {
        Step::Alone { group, .. } => format!("{}: this replica becomes the only voter", group_text(*group)),
        Step::Forget { group } => format!("{}: this replica is dropped, another node goes on with it", group_text(*group)),
        Step::Found { copied, .. } => format!("system group: begins anew here from the copy up to entry {}", copied.index),
    }
}

/// Without a calendar: what a person compares, and `date -d @SECONDS` explains.
fn time(at: Option<Timestamp>) -> String {
    at.map_or("unknown".to_owned(), |at| format!("@{at}"))
}

fn place_json(place: LogPlace) -> Value {
    json!({ "term": place.term, "index": place.index })
}

fn report_json(report: &NodeReport) -> Value {
    let replicas = report.replicas.iter().map(|replica| {
        json!({
            "group": replica.group.0,
            "term": replica.term.0,
            "last": place_json(replica.last),
            "committed": replica.committed,
            "applied": replica.applied,
            "voters": replica.voters.iter().map(|voter| voter.0).collect::<Vec<_>>(),
            "members_open": replica.members_open,
            "newest_millis": replica.newest.map(Timestamp::as_millis),
        })
    });
    let copy = |copy: &CopyReport| json!({ "epoch": copy.known.epoch.0, "place": place_json(copy.place), "taken_millis": copy.taken.as_millis() });
    json!({
        "node": report.node.to_string(),
        "replica": report.replica.0,
        "cluster": report.cluster.to_string(),
        "incarnation": report.incarnation.to_string(),
        "replicas": replicas.collect::<Vec<_>>(),
        "copy": report.copy.as_ref().map(copy),
    })
}

fn plan_json(plan: &RecoveryPlan) -> Value {
    let fates = plan.fates.iter().map(|(group, fate)| {
        let (name, node) = match fate {
            Fate::Whole {} => ("whole", None),
            Fate::Alone { node, .. } => ("alone", Some(node)),
            Fate::Founded { node, .. } => ("founded", Some(node)),
            Fate::Lost {} => ("lost", None),
        };
        json!({ "group": group.0, "fate": name, "node": node.map(NodeId::to_string), "says": fate_text(fate) })
    });
    json!({
        "cluster": plan.cluster.to_string(),
        "incarnation": plan.incarnation.to_string(),
        "gone": plan.gone.iter().map(|node| node.node.to_string()).collect::<Vec<_>>(),
        "groups": fates.collect::<Vec<_>>(),
        "nodes": plan.nodes.iter().map(steps_json).collect::<Vec<_>>(),
    })
}

fn steps_json(steps: &NodeSteps) -> Value {
    json!({ "node": steps.node.to_string(), "steps": steps.steps.iter().map(step_text).collect::<Vec<_>>() })
}
