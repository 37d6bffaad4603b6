//! Which node to ask for writing or reading a chunk, and the deletion of shards that came to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use placement_map::{ClusterMap, NodeState};
use placement_proto::api::MapWatch;
use placement_types::{ChunkId, DiskId, Env, NodeId, ShardId};
use storage_node_proto::api::{NodeApi, Nodes};
use storage_node_proto::object::ChunkEntry;

use crate::limits::{CLEANUP_DEADLINE, DELETE_SHARDS_PER_CALL};

/// The nodes as the data path sees them. Cheap to clone.
#[derive(Clone)]
pub struct Coordinators {
    pub env: Env,
    nodes: Arc<dyn Nodes>,
    maps: MapWatch,
    /// The node in this process, if there is one: it is asked first, as its calls cross no network.
    local: Option<NodeId>,
}

impl Coordinators {
    pub fn new(env: Env, nodes: Arc<dyn Nodes>, maps: MapWatch, local: Option<NodeId>) -> Self {
        Self { env, nodes, maps, local }
    }

    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.maps.borrow().clone()
    }

    pub fn node(&self, id: NodeId) -> Option<Arc<dyn NodeApi>> {
        self.nodes.node(id)
    }

    /// Nodes to coordinate a new chunk: those with a healthy disk in its ring row, in the row's order, this process's own
    /// first; then every other node that is up.
    pub fn to_write(&self, map: &ClusterMap, chunk: ChunkId) -> Vec<NodeId> {
        let row = map.ring.row(chunk).iter().filter(|disk| map.takes_shards(**disk));
        let in_row = row.filter_map(|disk| map.node_of_disk(*disk)).map(|node| node.id);
        let others = map.nodes.values().filter(|node| node.state == NodeState::Up).map(|node| node.id);
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in in_row {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes.sort_by_key(|node| Some(*node) != self.local);
        for node in others {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Nodes to read a chunk through: those that hold a data shard (in random order, so that a popular object's load
    /// spreads), then parity holders, then the rest; whatever is down comes last, this process's own node first if it holds
    /// any shard.
    pub fn to_read(&self, map: &ClusterMap, entry: &ChunkEntry) -> Vec<NodeId> {
        let mut ranks: BTreeMap<NodeId, u64> = BTreeMap::new();
        let holder = |disk: &DiskId| map.disks.get(disk).map(|disk| disk.node);
        for (slot, disk) in entry.shards.iter().enumerate() {
            if let Some(node) = disk.as_ref().and_then(holder) {
                let class = if Some(node) == self.local {
                    0
                } else if slot < entry.profile.data() {
                    1
                } else {
                    2
                };
                let rank = ranks.entry(node).or_insert(u64::MAX);
                *rank = (*rank).min((class << 32) | self.env.random_below(1 << 32));
            }
        }
        for node in map.nodes.keys() {
            ranks.entry(*node).or_insert(3 << 32);
        }
        for (node, rank) in &mut ranks {
            if map.nodes.get(node).is_none_or(|node| node.state != NodeState::Up) {
                *rank |= 1 << 40;
            }
        }
        let mut nodes: Vec<(u64, NodeId)> = ranks.into_iter().map(|(node, rank)| (rank, node)).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// Deletes the shards of chunks that nothing will ever refer to, as far as their nodes answer. Only for chunks whose
    /// transaction was never proposed, or was refused for good; the scrub fences and deletes whatever is left (I5).
    pub async fn delete_unreferenced(&self, entries: Vec<ChunkEntry>) {
        let Some(map) = self.map() else { return };
        let mut by_disk: BTreeMap<DiskId, Vec<ShardId>> = BTreeMap::new();
        for entry in &entries {
            for (index, disk) in (0u8..).zip(&entry.shards) {
                if let Some(disk) = disk {
                    by_disk.entry(*disk).or_default().push(ShardId { chunk: entry.chunk, index });
                }
            }
        }
        for (disk, shards) in by_disk {
            let Some(node) = map.node_of_disk(disk).and_then(|node| self.node(node.id)) else { continue };
            for shards in shards.chunks(DELETE_SHARDS_PER_CALL) {
                match self.env.timeout(CLEANUP_DEADLINE, node.delete_shards(disk, shards.to_vec())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%disk, %error, "orphans are left to the scrub"),
                    Err(elapsed) => tracing::debug!(%disk, %elapsed, "orphans are left to the scrub"),
                }
            }
        }
    }
}
