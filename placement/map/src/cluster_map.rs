//! What the cluster consists of and where new data goes.
//!
//! The map only advises new writes: where existing chunks are is recorded in their manifests, so that nobody's correctness
//! depends on having the newest epoch (I7).

use std::collections::{BTreeMap, BTreeSet};

use placement_types::{ChunkId, ClusterId, DiskId, Epoch, GroupId, NodeId, Profile, ReplicaId, SLOTS, Slot, ZoneName};

/// # Invariants
/// Every disk's node is in `nodes`; every ring row names disks of the map, none twice; `slots` has [`SLOTS`] entries, each a
/// key of `groups`; replica ids are unique and never reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    /// The default k+m of new chunks.
    pub profile: Profile,
    pub nodes: BTreeMap<NodeId, Node>,
    pub disks: BTreeMap<DiskId, Disk>,
    pub ring: Ring,
    /// The voters of every Raft group, the system group included.
    pub groups: BTreeMap<GroupId, Vec<NodeId>>,
    /// The metadata group of every slot.
    pub slots: Vec<GroupId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// Its identity in Raft groups.
    pub replica: ReplicaId,
    /// `host:port` of its internal listener.
    pub address: String,
    pub zone: ZoneName,
    pub state: NodeState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    Up,
    /// No heartbeat for too long. New shards go elsewhere.
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: DiskId,
    pub node: NodeId,
    /// Its weight in the ring.
    pub capacity_bytes: u64,
    pub state: DiskState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    Good,
    /// Readable, but takes no new shards.
    ReadOnly,
    Dead,
}

/// Partition -> disks in order of preference: the first k+m are a chunk's homes.
///
/// # Invariants
/// The number of partitions is a power of two and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ring {
    pub rows: Vec<Vec<DiskId>>,
}

impl Ring {
    /// The row of a chunk: chunk ids are random, so their leading bits spread evenly.
    pub fn row(&self, chunk: ChunkId) -> &[DiskId] {
        if self.rows.is_empty() {
            return &[];
        }
        let partition = (chunk.as_u128() >> 96) as usize % self.rows.len();
        &self.rows[partition]
    }
}

/// Which invariant of a [`ClusterMap`] does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMap {
    #[error("two nodes have the replica id {replica}, or it is 0")]
    Replica { replica: ReplicaId },
    #[error("disk {disk} is on node {node}, which is not in the map")]
    DiskWithoutNode { disk: DiskId, node: NodeId },
    #[error("{partitions} partitions are not a power of two")]
    Partitions { partitions: usize },
    #[error("the row of partition {partition} names a disk twice or one that is not in the map")]
    Row { partition: usize },
    #[error("the voters of group {group} are none, or not distinct nodes of the map")]
    Voters { group: GroupId },
    #[error("{slots} slots are not {SLOTS}, or one names an unknown group")]
    Slots { slots: usize },
}

impl ClusterMap {
    /// Checks the invariants of the type. A map without a ring (no rows at all) passes: nothing can be written with it.
    pub fn check(&self) -> Result<(), InvalidMap> {
        let mut replicas = BTreeSet::new();
        if let Some(node) = self.nodes.values().find(|node| node.replica.0 == 0 || !replicas.insert(node.replica)) {
            return Err(InvalidMap::Replica { replica: node.replica });
        }
        if let Some(disk) = self.disks.values().find(|disk| !self.nodes.contains_key(&disk.node)) {
            return Err(InvalidMap::DiskWithoutNode { disk: disk.id, node: disk.node });
        }
        let partitions = self.ring.rows.len();
        if partitions != 0 && !partitions.is_power_of_two() {
            return Err(InvalidMap::Partitions { partitions });
        }
        let bad_row = |row: &Vec<DiskId>| {
            let repeats = row.iter().enumerate().any(|(slot, disk)| row[..slot].contains(disk));
            repeats || row.iter().any(|disk| !self.disks.contains_key(disk))
        };
        if let Some(partition) = self.ring.rows.iter().position(bad_row) {
            return Err(InvalidMap::Row { partition });
        }
        for (group, voters) in &self.groups {
            let distinct: BTreeSet<&NodeId> = voters.iter().collect();
            if voters.is_empty() || distinct.len() != voters.len() || voters.iter().any(|node| !self.nodes.contains_key(node)) {
                return Err(InvalidMap::Voters { group: *group });
            }
        }
        if self.slots.len() != usize::from(SLOTS) || self.slots.iter().any(|group| !self.groups.contains_key(group)) {
            return Err(InvalidMap::Slots { slots: self.slots.len() });
        }
        Ok(())
    }

    /// The metadata group that owns a slot.
    pub fn group_of(&self, slot: Slot) -> GroupId {
        self.slots[usize::from(slot.0 % SLOTS)]
    }

    pub fn node_of_disk(&self, disk: DiskId) -> Option<&Node> {
        self.nodes.get(&self.disks.get(&disk)?.node)
    }

    pub fn node_by_replica(&self, replica: ReplicaId) -> Option<&Node> {
        self.nodes.values().find(|node| node.replica == replica)
    }

    /// Whether a disk may take new shards: it is good and its node is up.
    pub fn takes_shards(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|entry| {
            entry.state == DiskState::Good && self.nodes.get(&entry.node).is_some_and(|node| node.state == NodeState::Up)
        })
    }
}
