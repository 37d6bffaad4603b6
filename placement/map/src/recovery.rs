//! The way out when majorities are gone for ever: from what every node that is left has, who goes on with which group.
//!
//! - [`plan`] decides. It wants a report of every node that is not declared gone, so that nothing which could still be had is
//!   overlooked, and of several replicas of a group it takes the one with the most advanced log: that one has everything that
//!   was acknowledged and that any of the others has.
//! - A group of which a majority is left goes on as it is. Of any other the chosen replica goes on alone, and further ones are
//!   dropped; where no replica is left, only the system group can be had back, from a copy of its state ([`Fate::Founded`]).
//! - The system group never goes on as it is: it has to be told, as the first entry of its new life, who is gone
//!   ([`SystemChange::Recover`](crate::system::SystemChange::Recover)).
//! - [`recovered`] is what that does to the map: the nodes and disks that are gone are removed for ever, as if an operator had
//!   done it by force, and the numbers that the lost majority may have given out since are skipped.

use std::collections::{BTreeMap, BTreeSet};

use placement_types::{ClusterId, Epoch, GroupId, Incarnation, NodeId, ReplicaId, Term, Timestamp, TxnId};

use crate::cluster_map::{ClusterMap, NodeState};
use crate::layout::step_ring;
use crate::limits::{LAYOUTS_SKIPPED, NUMBERS_SKIPPED, RECOVERY_GROUPS_MAX, VOTERS_MAX};
use crate::system::{SystemChange, SystemCommand};
use crate::voters;

/// A place in a group's log. The greater one has more of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogPlace {
    pub term: u64,
    pub index: u64,
}

/// A replica on a stopped node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    pub group: GroupId,
    pub term: Term,
    pub last: LogPlace,
    pub committed: u64,
    pub applied: u64,
    /// None: it has only heard of the group.
    pub voters: Vec<ReplicaId>,
    pub voters_outgoing: Vec<ReplicaId>,
    /// A change of the members is in its log and not applied.
    pub members_open: bool,
    /// The time in the newest entry that somebody proposed.
    pub newest: Option<Timestamp>,
}

/// What a copy of the cluster map says about who there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCluster {
    pub epoch: Epoch,
    pub nodes: Vec<KnownNode>,
    pub groups: Vec<GroupId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    pub node: NodeId,
    pub replica: ReplicaId,
    pub address: String,
}

/// The newest copy of the system group's state on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyReport {
    pub place: LogPlace,
    pub taken: Timestamp,
    pub known: KnownCluster,
}

/// What a stopped node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    pub cluster: ClusterId,
    pub incarnation: Incarnation,
    pub node: NodeId,
    pub replica: ReplicaId,
    pub replicas: Vec<ReplicaReport>,
    /// By its own replica of the system group.
    pub known: Option<KnownCluster>,
    pub copy: Option<CopyReport>,
}

/// What becomes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// A majority is left: it goes on by itself, and nothing of it is lost.
    Whole {},
    /// One replica goes on alone. What only the others had is lost.
    Alone { node: NodeId, last: LogPlace, newest: Option<Timestamp> },
    /// It begins anew from a copy. What came after the copy is lost.
    Founded { node: NodeId, copied: LogPlace, epoch: Epoch, taken: Timestamp },
    /// Nothing is left.
    Lost {},
}

/// What is to be done on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSteps {
    pub node: NodeId,
    /// Where its logs ended when the plan was made: elsewhere, the plan is stale.
    pub expected: Vec<(GroupId, LogPlace)>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This replica becomes the only voter, in a term after `after`.
    Alone { group: GroupId, after: Term },
    /// This replica is dropped.
    Forget { group: GroupId },
    /// The system group begins anew from the node's copy of its state, at a place that it never reached.
    Found { copied: LogPlace, at: LogPlace },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPlan {
    pub cluster: ClusterId,
    pub before: Incarnation,
    pub incarnation: Incarnation,
    pub txn: TxnId,
    pub time: Timestamp,
    pub gone: Vec<KnownNode>,
    pub fates: Vec<(GroupId, Fate)>,
    /// For every node that is left.
    pub nodes: Vec<NodeSteps>,
}

/// What no function of the reports can give a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Random, not 0.
    pub incarnation: u32,
    pub txn: TxnId,
    pub time: Timestamp,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    #[error("no node was inspected")]
    NoReports,
    #[error("node {node} was inspected twice")]
    Twice { node: NodeId },
    #[error("node {node} is of cluster {found}, the others of {cluster}")]
    OtherCluster { node: NodeId, found: ClusterId, cluster: ClusterId },
    #[error(
        "node {node} is of incarnation {found} of the cluster, another one of {newest}: apply the plan that made that one to it \
         first, or declare it gone"
    )]
    OtherIncarnation { node: NodeId, found: Incarnation, newest: Incarnation },
    #[error(
        "none of these nodes has a replica or a copy of the system group: without it nobody knows what belongs to the cluster"
    )]
    NoSystemGroup,
    #[error("the newest map that is left does not know node {node}, which joined later: wipe it, and let it join again")]
    UnknownNode { node: NodeId },
    #[error("the newest map that is left does not know node {node}, which is to be gone")]
    UnknownGone { node: NodeId },
    #[error("node {node} is declared gone, but was inspected")]
    NotGone { node: NodeId },
    #[error("node {node} ({address}) was not inspected: inspect it, or declare it gone if it is, for ever")]
    Unaccounted { node: NodeId, address: String },
    #[error("every group has a majority left: nothing is lost, start these nodes")]
    NothingLost,
}

/// What goes on where.
///
/// # Errors
/// What is missing or contradicts, and that nothing has to be done.
pub fn plan(reports: &[NodeReport], gone: &BTreeSet<NodeId>, drawn: Drawn) -> Result<RecoveryPlan, NoPlan> {
    let first = reports.first().ok_or(NoPlan::NoReports)?;
    let before = check_alike(first, reports)?;
    let system = SystemSource::newest(reports).ok_or(NoPlan::NoSystemGroup)?;
    let known = system.known();
    check_complete(known, reports, gone)?;
    let is_whole = |group: GroupId| has_majority(reports, group);
    if known.groups.iter().all(|group| is_whole(*group)) {
        return Err(NoPlan::NothingLost);
    }
    let mut fates = BTreeMap::from([(GroupId::SYSTEM, system.fate())]);
    for group in known.groups.iter().copied().filter(|group| *group != GroupId::SYSTEM) {
        let fate = match best_replica(reports, group) {
            Some(_) if is_whole(group) => Fate::Whole {},
            Some((node, replica)) => Fate::Alone { node, last: replica.last, newest: replica.newest },
            None => Fate::Lost {},
        };
        fates.insert(group, fate);
    }
    let nodes = reports.iter().map(|report| steps_of(report, reports, &fates)).collect();
    Ok(RecoveryPlan {
        cluster: first.cluster,
        before,
        incarnation: before.next(drawn.incarnation),
        txn: drawn.txn,
        time: drawn.time,
        gone: known.nodes.iter().filter(|known| gone.contains(&known.node)).cloned().collect(),
        fates: fates.into_iter().collect(),
        nodes,
    })
}

/// The incarnation that all are of.
fn check_alike(first: &NodeReport, reports: &[NodeReport]) -> Result<Incarnation, NoPlan> {
    let newest = reports.iter().map(|report| report.incarnation).max_by_key(|incarnation| incarnation.number());
    let newest = newest.expect("there is a report");
    for (position, report) in reports.iter().enumerate() {
        let node = report.node;
        if reports[..position].iter().any(|other| other.node == node) {
            return Err(NoPlan::Twice { node });
        }
        if report.cluster != first.cluster {
            return Err(NoPlan::OtherCluster { node, found: report.cluster, cluster: first.cluster });
        }
        if report.incarnation != newest {
            return Err(NoPlan::OtherIncarnation { node, found: report.incarnation, newest });
        }
    }
    Ok(newest)
}

/// Everybody is either here or gone.
fn check_complete(known: &KnownCluster, reports: &[NodeReport], gone: &BTreeSet<NodeId>) -> Result<(), NoPlan> {
    let is_known = |node: &NodeId| known.nodes.iter().any(|known| known.node == *node);
    let is_here = |node: &NodeId| reports.iter().any(|report| report.node == *node);
    if let Some(report) = reports.iter().find(|report| !is_known(&report.node)) {
        return Err(NoPlan::UnknownNode { node: report.node });
    }
    if let Some(node) = gone.iter().find(|node| !is_known(node)) {
        return Err(NoPlan::UnknownGone { node: *node });
    }
    if let Some(node) = gone.iter().find(|node| is_here(node)) {
        return Err(NoPlan::NotGone { node: *node });
    }
    match known.nodes.iter().find(|known| !is_here(&known.node) && !gone.contains(&known.node)) {
        Some(missing) => Err(NoPlan::Unaccounted { node: missing.node, address: missing.address.clone() }),
        None => Ok(()),
    }
}

fn replicas(reports: &[NodeReport], group: GroupId) -> impl Iterator<Item = (&NodeReport, &ReplicaReport)> {
    reports.iter().flat_map(move |report| {
        let of_group = report.replicas.iter().filter(move |replica| replica.group == group && !replica.voters.is_empty());
        of_group.map(move |replica| (report, replica))
    })
}

/// The most advanced replica of a group.
fn best_replica(reports: &[NodeReport], group: GroupId) -> Option<(NodeId, &ReplicaReport)> {
    let best = replicas(reports, group).max_by_key(|(report, replica)| (replica.last, replica.applied, report.node));
    best.map(|(report, replica)| (report.node, replica))
}

/// Whether the replicas that are here can decide. Who the members are is taken from the most advanced one; where a change of
/// them is open, they are taken not to.
fn has_majority(reports: &[NodeReport], group: GroupId) -> bool {
    let Some((_, best)) = best_replica(reports, group) else { return false };
    let here: BTreeSet<ReplicaId> = replicas(reports, group).map(|(report, _)| report.replica).collect();
    let decide = |voters: &[ReplicaId]| 2 * voters.iter().filter(|voter| here.contains(voter)).count() > voters.len();
    !best.members_open && decide(&best.voters) && (best.voters_outgoing.is_empty() || decide(&best.voters_outgoing))
}

/// Where the system group's state comes from.
enum SystemSource<'a> {
    Replica { report: &'a NodeReport, replica: &'a ReplicaReport, known: &'a KnownCluster },
    Copy { report: &'a NodeReport, copy: &'a CopyReport },
}

impl<'a> SystemSource<'a> {
    /// The most advanced replica, unless a copy was taken from one that had more.
    fn newest(reports: &'a [NodeReport]) -> Option<Self> {
        let replica = replicas(reports, GroupId::SYSTEM)
            .filter_map(|(report, replica)| Some((report, replica, report.known.as_ref()?)))
            .max_by_key(|(report, replica, _)| (replica.last, replica.applied, report.node));
        let copies = reports.iter().filter_map(|report| Some((report, report.copy.as_ref()?)));
        let copy = copies.max_by_key(|(report, copy)| (copy.place, copy.taken, report.node));
        match (replica, copy) {
            (Some((_, replica, _)), Some((report, copy))) if copy.place > replica.last => Some(Self::Copy { report, copy }),
            (Some((report, replica, known)), _) => Some(Self::Replica { report, replica, known }),
            (None, Some((report, copy))) => Some(Self::Copy { report, copy }),
            (None, None) => None,
        }
    }

    fn known(&self) -> &'a KnownCluster {
        match self {
            Self::Replica { known, .. } => known,
            Self::Copy { copy, .. } => &copy.known,
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Replica { report, replica, .. } => {
                Fate::Alone { node: report.node, last: replica.last, newest: replica.newest }
            }
            Self::Copy { report, copy } => {
                Fate::Founded { node: report.node, copied: copy.place, epoch: copy.known.epoch, taken: copy.taken }
            }
        }
    }
}

fn steps_of(report: &NodeReport, reports: &[NodeReport], fates: &BTreeMap<GroupId, Fate>) -> NodeSteps {
    let me = report.node;
    let mut steps = Vec::new();
    for (group, fate) in fates {
        let has_replica = report.replicas.iter().any(|replica| replica.group == *group && !replica.voters.is_empty());
        // Whoever goes on is in a term that nobody who is left has seen.
        let after =
            || Term(replicas(reports, *group).map(|(_, replica)| replica.term.0.max(replica.last.term)).max().unwrap_or(0));
        match fate {
            Fate::Whole {} | Fate::Lost {} => {}
            Fate::Alone { node, .. } if *node == me => steps.push(Step::Alone { group: *group, after: after() }),
            Fate::Founded { node, copied, .. } if *node == me => {
                let index = replicas(reports, *group).map(|(_, replica)| replica.last.index).max().unwrap_or(0);
                let at = LogPlace {
                    term: after().0.max(copied.term) + 1,
                    index: index.max(copied.index).saturating_add(NUMBERS_SKIPPED),
                };
                steps.push(Step::Found { copied: *copied, at });
            }
            Fate::Alone { .. } | Fate::Founded { .. } if has_replica => steps.push(Step::Forget { group: *group }),
            Fate::Alone { .. } | Fate::Founded { .. } => {}
        }
    }
    let expected = report.replicas.iter().map(|replica| (replica.group, replica.last)).collect();
    NodeSteps { node: me, expected, steps }
}

impl RecoveryPlan {
    /// What the system group is told first.
    pub fn command(&self) -> SystemCommand {
        let alone = self.fates.iter().filter_map(|(group, fate)| match fate {
            Fate::Alone { node, .. } | Fate::Founded { node, .. } => Some((*group, *node)),
            Fate::Whole {} | Fate::Lost {} => None,
        });
        let change = SystemChange::Recover { gone: self.gone.iter().map(|known| known.node).collect(), alone: alone.collect() };
        SystemCommand { txn: self.txn, time: self.time, change }
    }

    pub fn steps_of(&self, node: NodeId) -> Option<&NodeSteps> {
        self.nodes.iter().find(|steps| steps.node == node)
    }
}

/// The map with which a cluster goes on without the nodes that are gone; `alone` says who goes on with a group.
pub(crate) fn recovered(before: &ClusterMap, gone: &[NodeId], alone: &[(GroupId, NodeId)]) -> Result<ClusterMap, String> {
    let gone: BTreeSet<NodeId> = gone.iter().copied().collect();
    let is_left = |node: &NodeId| before.nodes.contains_key(node) && !gone.contains(node);
    if alone.len() > RECOVERY_GROUPS_MAX || alone.iter().any(|(group, node)| !before.groups.contains_key(group) || !is_left(node))
    {
        return Err("a group is to go on where there is none, or on a node that is not left".to_owned());
    }
    let Some((_, keeper)) = alone.iter().find(|(group, _)| *group == GroupId::SYSTEM) else {
        return Err("the system group is to go on nowhere".to_owned());
    };
    let mut map = before.clone();
    map.nodes.retain(|node, _| !gone.contains(node));
    // Every process was stopped, and the directories may have seen later runs than the replica or copy this comes from.
    map.boots.clear();
    map.removed_nodes.extend(gone.iter().filter(|node| before.nodes.contains_key(node)));
    let disks_gone: Vec<_> = before.disks.values().filter(|disk| gone.contains(&disk.node)).map(|disk| disk.id).collect();
    for disk in disks_gone {
        map.disks.remove(&disk);
        map.removed_disks.insert(disk);
    }
    for (group, voters) in &mut map.groups {
        let had = voters.clone();
        match alone.iter().find(|(decided, _)| decided == group) {
            Some((_, node)) => *voters = vec![*node],
            None => voters.retain(|node| !gone.contains(node)),
        }
        if voters.is_empty() {
            // Nothing is left of it. A map names somebody for every group; being in `moved_groups`, nobody makes it anew.
            voters.push(*keeper);
        }
        if *voters != had {
            map.moved_groups.insert(*group);
        }
    }
    // Those that are left are about to start. Who goes on alone gets company from them at once, by the map; its group's leader
    // brings them in.
    map.nodes.values_mut().for_each(|node| node.state = NodeState::Up);
    for (group, _) in alone {
        for _ in 0..VOTERS_MAX {
            let Some(more) = voters::improved(&map, &map.groups[group]) else { break };
            map.groups.insert(*group, more);
        }
    }
    map.next_replica = ReplicaId(map.next_replica.0.saturating_add(NUMBERS_SKIPPED));
    map.layout = map.layout.saturating_add(LAYOUTS_SKIPPED);
    map.epoch = Epoch(map.epoch.0.saturating_add(NUMBERS_SKIPPED));
    step_ring(&mut map);
    map.check().map_err(|error| error.to_string())?;
    Ok(map)
}

#[cfg(test)]
mod tests;
