//! `/admin/v1/layout/plan` and `/apply`: what an operator changes about the cluster, shown first and then done.
//!
//! A plan is computed by the same function as the change itself ([`placement_map::layout`]), so it shows exactly what applying
//! would do. It names the layout it was made on; a change that is applied with that number is refused when anything else was
//! changed in between, so two changes at once are one after the other.
//!
//! A disk is removed only when no manifest names it any more: every metadata group is asked. `force` removes it all the same;
//! what had too few other shards is then lost. A node is removed only when no metadata group needs its agreement: the map
//! says who is to vote, and a group gets there in its own time, so every group is asked as well.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use placement_map::layout::{change, disks_in_use, settled};
use placement_map::plan::{Balance, Plan, Tolerance};
use placement_map::profile::default_profile;
use placement_map::system::{LayoutChange, SystemChange, SystemOutcome};
use placement_map::{ClusterMap, DiskRole};
use placement_types::{DiskId, GroupId, NodeId};
use serde::Deserialize;
use serde_json::{Value, json};
use storage_node_proto::query::{Answer, Query};

use crate::admin::upkeep;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::{HOLDINGS_PAGE, READY_DEADLINE};

/// A change as it stands in a request's query.
#[derive(Debug, Clone, Deserialize)]
pub struct LayoutQuery {
    op: Operation,
    /// Ids, unique beginnings of ids, or addresses of nodes; a node stands for its disks.
    #[serde(default)]
    targets: String,
    /// For `weigh`: bytes; nothing for the capacity.
    weight_bytes: Option<u64>,
    /// For `profile`: k+m; nothing for what suits the disks in use.
    profile: Option<String>,
    /// The layout that the change was planned on; the newest when it is not given.
    layout: Option<u64>,
    /// For `remove`: although data may be lost.
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Operation {
    TakeIn,
    Drain,
    Keep,
    Weigh,
    RemoveDisk,
    RemoveNode,
    Profile,
}

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("{0}")]
    Invalid(String),
    /// The cluster does not allow it as it is.
    #[error("{0}")]
    Refused(String),
    #[error("no cluster map is known: the cluster is not formed or not reachable")]
    NoMap,
    #[error("the cluster cannot say now whether anything is left on it; try again")]
    Unavailable,
    #[error("the change may or may not have been made: look at the status")]
    Unknown,
}

/// What the change would do.
pub async fn plan(gw: &Gateway, query: &LayoutQuery) -> Result<Value, LayoutError> {
    let map = newest_map(gw)?;
    let change = parse(&map, query)?;
    Ok(describe(gw, &map, &change).await?.0)
}

/// Makes the change; answers with its plan.
pub async fn apply(gw: &Gateway, query: &LayoutQuery) -> Result<Value, LayoutError> {
    let map = newest_map(gw)?;
    let change = parse(&map, query)?;
    let planned_on = query.layout.unwrap_or(map.layout);
    let (mut described, held) = describe(gw, &map, &change).await?;
    if held.shards > 0 && !query.force {
        return Err(LayoutError::Refused(format!(
            "{} shards ({} bytes) are still there: drain the disk and wait, or repeat it with --force-lossy to give them up",
            held.shards, held.bytes
        )));
    }
    let outcome = gw.system.propose(SystemChange::SetLayout { planned_on, change }).await.map_err(|_| LayoutError::Unknown)?;
    match outcome {
        SystemOutcome::Done => {
            described["applied"] = Value::Bool(true);
            Ok(described)
        }
        SystemOutcome::StalePlan { layout } => Err(LayoutError::Refused(format!(
            "the plan is stale: it was made on layout {planned_on}, and the layout is {layout} by now; plan again"
        ))),
        outcome => Err(LayoutError::Refused(outcome.into_reason())),
    }
}

fn newest_map(gw: &Gateway) -> Result<Arc<ClusterMap>, LayoutError> {
    gw.maps.borrow().clone().ok_or(LayoutError::NoMap)
}

fn parse(map: &ClusterMap, query: &LayoutQuery) -> Result<LayoutChange, LayoutError> {
    let invalid = |why: &str| LayoutError::Invalid(why.to_owned());
    let targets: Vec<&str> = query.targets.split(',').map(str::trim).filter(|target| !target.is_empty()).collect();
    if targets.is_empty() && query.op != Operation::Profile && query.op != Operation::TakeIn {
        return Err(invalid("name a disk or a node"));
    }
    let disks = |role: Option<DiskRole>| -> Result<Vec<DiskId>, LayoutError> {
        let mut disks = Vec::new();
        for target in &targets {
            disks.extend(find(map, target)?.disks(map, role));
        }
        disks.sort_unstable();
        disks.dedup();
        if disks.is_empty() { Err(invalid("no disk of those named is in the state that this is for")) } else { Ok(disks) }
    };
    Ok(match query.op {
        Operation::TakeIn if targets.is_empty() => {
            let joining =
                map.disks.values().filter(|disk| disk.role == DiskRole::Joining).map(|disk| disk.id).collect::<Vec<_>>();
            if joining.is_empty() {
                return Err(invalid("no disk waits to be taken in"));
            }
            LayoutChange::TakeIn { disks: joining }
        }
        Operation::TakeIn => LayoutChange::TakeIn { disks: disks(Some(DiskRole::Joining))? },
        Operation::Drain => LayoutChange::Drain { disks: disks(Some(DiskRole::InUse))? },
        Operation::Keep => LayoutChange::Keep { disks: disks(Some(DiskRole::Draining))? },
        Operation::RemoveDisk => LayoutChange::RemoveDisks { disks: disks(None)? },
        Operation::Weigh => match disks(None)?.as_slice() {
            [disk] => LayoutChange::Weigh { disk: *disk, weight_bytes: query.weight_bytes },
            _ => return Err(invalid("one disk is weighed at a time")),
        },
        Operation::RemoveNode => match targets.as_slice() {
            [target] => match find(map, target)? {
                Target::Node(node) => LayoutChange::RemoveNode { node },
                Target::Disk(_) => return Err(invalid("that is a disk, not a node")),
            },
            _ => return Err(invalid("one node is removed at a time")),
        },
        Operation::Profile => {
            let profile = match query.profile.as_deref() {
                Some(text) => text.parse().map_err(|error| LayoutError::Invalid(format!("{error}")))?,
                None => default_profile(&disks_in_use(map)).ok_or_else(|| invalid("no disk is in use"))?,
            };
            LayoutChange::SetProfile { profile }
        }
    })
}

enum Target {
    Disk(DiskId),
    Node(NodeId),
}

impl Target {
    /// The disks meant, of a node only those in the role.
    fn disks(&self, map: &ClusterMap, role: Option<DiskRole>) -> Vec<DiskId> {
        match self {
            Target::Disk(disk) => vec![*disk],
            Target::Node(node) => {
                let of_node = map.disks.values().filter(|disk| disk.node == *node);
                of_node.filter(|disk| role.is_none_or(|role| disk.role == role)).map(|disk| disk.id).collect()
            }
        }
    }
}

fn find(map: &ClusterMap, text: &str) -> Result<Target, LayoutError> {
    if let Some(node) = map.nodes.values().find(|node| node.address == text) {
        return Ok(Target::Node(node.id));
    }
    let disks = map.disks.keys().filter(|disk| disk.to_string().starts_with(text)).map(|disk| Target::Disk(*disk));
    let nodes = map.nodes.keys().filter(|node| node.to_string().starts_with(text)).map(|node| Target::Node(*node));
    let mut found: Vec<Target> = disks.chain(nodes).collect();
    match (found.pop(), found.is_empty()) {
        (Some(target), true) => Ok(target),
        (Some(_), false) => Err(LayoutError::Invalid(format!("{text} is the beginning of several ids: give more of it"))),
        (None, _) => Err(LayoutError::Invalid(format!("there is no disk or node {text}"))),
    }
}

/// What manifests say is on some disks.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    shards: u64,
    bytes: u64,
}

async fn describe(gw: &Gateway, map: &Arc<ClusterMap>, layout: &LayoutChange) -> Result<(Value, Held), LayoutError> {
    if let LayoutChange::RemoveNode { node } = layout {
        refuse_voter(gw, map, *node).await?;
    }
    let held = match layout {
        LayoutChange::RemoveDisks { disks } => held_on(gw, map, disks).await.ok_or(LayoutError::Unavailable)?,
        LayoutChange::TakeIn { .. }
        | LayoutChange::Drain { .. }
        | LayoutChange::Keep { .. }
        | LayoutChange::Weigh { .. }
        | LayoutChange::RemoveNode { .. }
        | LayoutChange::SetProfile { .. } => Held::default(),
    };
    let stored: u64 = stream::iter(map.nodes.keys().copied().collect::<Vec<_>>())
        .map(|node| stored_on(gw, node))
        .buffer_unordered(32)
        .fold(0, |sum, bytes| async move { sum + bytes })
        .await;
    // A ring of thousands of disks takes a while to settle.
    let (before, wanted) = (Arc::clone(map), layout.clone());
    let planned = gw.env.run_blocking(move || {
        let after = change(&before, &wanted)?;
        Ok(after.map(|after| (Plan::between(&before, &settled(&after), stored), Balance::of(&before), after.profile)))
    });
    let Some((plan, balance_before, profile)) = planned.await.map_err(LayoutError::Refused)? else {
        return Ok((json!({ "layout": map.layout, "changes": false }), held));
    };
    let upkeep = upkeep::gather(gw, map).await;
    let rate = upkeep.bytes_per_second();
    let (recoded, recoded_bytes) = match layout {
        LayoutChange::SetProfile { profile } => upkeep.recoded_to(*profile),
        LayoutChange::TakeIn { .. }
        | LayoutChange::Drain { .. }
        | LayoutChange::Keep { .. }
        | LayoutChange::Weigh { .. }
        | LayoutChange::RemoveDisks { .. }
        | LayoutChange::RemoveNode { .. } => Default::default(),
    };
    let described = json!({
        "layout": map.layout,
        "changes": true,
        "partitions_moved": plan.partitions_moved,
        "partitions": map.ring.rows.len(),
        "bytes_moved": plan.bytes_moved,
        // What is coded anew is not moved as well.
        "seconds_expected": rate.map(|rate| plan.bytes_moved.max(recoded_bytes) / rate),
        "profile_before": map.profile.to_string(),
        "profile_after": profile.to_string(),
        "recoded": upkeep::tally(recoded),
        "recoded_shard_bytes": recoded_bytes,
        "groups_not_surveyed": upkeep.unsurveyed(map),
        "balance_before": balance(balance_before),
        "balance_after": balance(plan.balance),
        "tolerance_before": tolerance(plan.tolerance_before),
        "tolerance_after": tolerance(plan.tolerance_after),
        "shards_held": held.shards,
        "bytes_held": held.bytes,
    });
    Ok((described, held))
}

fn balance(balance: Balance) -> Value {
    json!({ "fullest": balance.fullest, "emptiest": balance.emptiest })
}

fn tolerance(tolerance: Tolerance) -> Value {
    json!({ "disks": tolerance.disks, "nodes": tolerance.nodes, "zones": tolerance.zones })
}

/// Bytes of shards on a node's disks, as far as it answers.
async fn stored_on(gw: &Gateway, node: NodeId) -> u64 {
    let Some(api) = gw.nodes.node(node) else { return 0 };
    let reports = gw.env.timeout(READY_DEADLINE, api.disks()).await.ok().and_then(Result::ok).unwrap_or_default();
    reports.iter().map(|report| report.shard_bytes).sum()
}

/// A node that is removed is not listened to any more from then on: a group that still counts on it may lose its majority.
async fn refuse_voter(gw: &Gateway, map: &ClusterMap, node: NodeId) -> Result<(), LayoutError> {
    let Some(replica) = map.nodes.get(&node).map(|node| node.replica) else { return Ok(()) };
    let mut members = stream::iter(map.groups.keys().copied().collect::<Vec<_>>())
        .map(|group| async move { (group, gw.router.query_group(group, READY_DEADLINE, Query::Members).await) })
        .buffer_unordered(16);
    while let Some((group, answer)) = members.next().await {
        let Ok(Answer::Members { replicas }) = answer else { return Err(LayoutError::Unavailable) };
        if replicas.contains(&replica) {
            return Err(LayoutError::Refused(format!(
                "node {node} still votes in group {group}: its replicas are moved once it is drained; try again in a moment"
            )));
        }
    }
    Ok(())
}

/// Asks every metadata group. `None` when one does not answer: then nobody knows.
async fn held_on(gw: &Gateway, map: &ClusterMap, disks: &[DiskId]) -> Option<Held> {
    let groups: Vec<GroupId> = map.metadata_groups().collect();
    let per_group = stream::iter(groups).map(|group| held_in(gw, group, disks)).buffer_unordered(8);
    let counted: Vec<Result<Held, Failure>> = per_group.collect().await;
    let mut sum = Held::default();
    for held in counted {
        let held = held.ok()?;
        sum = Held { shards: sum.shards + held.shards, bytes: sum.bytes + held.bytes };
    }
    Some(sum)
}

async fn held_in(gw: &Gateway, group: GroupId, disks: &[DiskId]) -> Result<Held, Failure> {
    let mut held = Held::default();
    let mut after = None;
    loop {
        let query = Query::Holdings { disks: disks.to_vec(), after: after.take(), limit: HOLDINGS_PAGE };
        match gw.router.query_group(group, crate::limits::META_DEADLINE, query).await? {
            Answer::Holdings { shards, bytes, next } => {
                held = Held { shards: held.shards + shards, bytes: held.bytes + bytes };
                after = next;
            }
            other => return Err(Failure::of_answer("holdings", other)),
        }
        if after.is_none() {
            return Ok(held);
        }
    }
}
