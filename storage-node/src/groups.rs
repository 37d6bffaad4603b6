//! Joins the metadata groups that the cluster map gives this node.
//!
//! Every voter of a group is told its members, each by its own map, with the same list; telling twice changes nothing. The
//! system group is not made here: founding the cluster makes it, before there is a map.

use placement_map::ClusterMap;
use placement_proto::api::MapWatch;
use placement_types::{Env, GroupId, NodeId, ReplicaId};
use std::time::Duration;
use storage_node_consensus::Consensus;

/// Follows the map for ever.
pub(crate) async fn follow(env: Env, interval: Duration, consensus: Consensus, mut maps: MapWatch, me: NodeId) {
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            join(&consensus, &map, me).await;
        }
        // The interval repeats what failed. A closed watch means that the process is going down.
        if let Ok(Err(_)) = env.timeout(interval, maps.changed()).await {
            return;
        }
    }
}

async fn join(consensus: &Consensus, map: &ClusterMap, me: NodeId) {
    for (group, voters) in &map.groups {
        if *group == GroupId::SYSTEM || !voters.contains(&me) || consensus.group_status(*group).is_some() {
            continue;
        }
        let replicas: Vec<ReplicaId> = voters.iter().filter_map(|node| Some(map.nodes.get(node)?.replica)).collect();
        if replicas.len() != voters.len() {
            tracing::error!(%group, "the cluster map names a voter it does not know");
            continue;
        }
        match consensus.create_group(*group, replicas).await {
            Ok(()) => tracing::info!(%group, "joined a metadata group"),
            Err(error) => tracing::warn!(%group, %error, "a metadata group could not be joined yet"),
        }
    }
}
