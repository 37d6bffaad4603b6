//! Keeps this node's replicas of metadata groups where the cluster map wants them.
//!
//! - Every first voter of a group is told its members, each by its own map, with the same list; telling twice changes nothing.
//!   The system group is not made here: founding the cluster makes it, before there is a map.
//! - A node that becomes a voter later creates nothing: the group's leader brings it in. The leader compares the members with
//!   what the map wants, first adds who is missing as learners, and when they have caught up makes the change by joint
//!   consensus, so that a majority of the old and of the new voters agrees to everything in between.

use std::collections::BTreeSet;
use std::time::Duration;

use placement_map::ClusterMap;
use placement_proto::api::MapWatch;
use placement_types::{Env, GroupId, NodeId, ReplicaId};
use storage_node_consensus::{Consensus, MembersError};

/// Follows the map for ever.
pub(crate) async fn follow(env: Env, interval: Duration, consensus: Consensus, mut maps: MapWatch, me: NodeId) {
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            create(&consensus, &map, me).await;
            for group in map.groups.keys().filter(|group| consensus.leads(**group)) {
                if let Err(error) = adjust(&consensus, &map, *group).await {
                    tracing::info!(%group, %error, "a change of a metadata group's voters was put off");
                }
            }
        }
        // The interval repeats what failed, and takes the next step. A closed watch means that the process is going down.
        if let Ok(Err(_)) = env.timeout(interval, maps.changed()).await {
            return;
        }
    }
}

async fn create(consensus: &Consensus, map: &ClusterMap, me: NodeId) {
    for (group, voters) in map.groups.iter().filter(|(group, voters)| is_first_voter(map, **group, voters, me)) {
        if consensus.group_status(*group).is_some() {
            continue;
        }
        let Some(replicas) = replicas(map, voters) else { continue };
        match consensus.create_group(*group, replicas).await {
            Ok(()) => tracing::info!(%group, "joined a metadata group"),
            Err(error) => tracing::warn!(%group, %error, "a metadata group could not be joined yet"),
        }
    }
}

fn is_first_voter(map: &ClusterMap, group: GroupId, voters: &[NodeId], me: NodeId) -> bool {
    group != GroupId::SYSTEM && voters.contains(&me) && !map.moved_groups.contains(&group)
}

/// One step from the members a group has to those the map wants.
async fn adjust(consensus: &Consensus, map: &ClusterMap, group: GroupId) -> Result<(), MembersError> {
    let Some(status) = consensus.group_status(group) else { return Ok(()) };
    let Some(wanted) = map.groups.get(&group).and_then(|voters| replicas(map, voters)) else { return Ok(()) };
    let (now, target) = (set(&status.voters), set(&wanted));
    if now == target || !status.voters_outgoing.is_empty() {
        return Ok(());
    }
    let missing: Vec<ReplicaId> = target.difference(&now).copied().collect();
    if !missing.iter().all(|replica| status.learners.contains(replica)) {
        tracing::info!(%group, learners = ?missing, "a metadata group brings in learners");
        return consensus.change_members(group, status.voters, missing).await;
    }
    let Some(lagging) = consensus.lagging(group).await else { return Ok(()) };
    if missing.iter().any(|replica| lagging.contains(replica)) {
        return Ok(());
    }
    tracing::info!(%group, voters = ?wanted, "a metadata group changes its voters");
    consensus.change_members(group, wanted, Vec::new()).await
}

fn set(replicas: &[ReplicaId]) -> BTreeSet<ReplicaId> {
    replicas.iter().copied().collect()
}

fn replicas(map: &ClusterMap, voters: &[NodeId]) -> Option<Vec<ReplicaId>> {
    let replicas: Vec<ReplicaId> = voters.iter().filter_map(|node| Some(map.nodes.get(node)?.replica)).collect();
    // A sound map names only nodes it has.
    (replicas.len() == voters.len()).then_some(replicas)
}
