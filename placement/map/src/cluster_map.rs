//! What the cluster consists of and where new data goes.
//!
//! The map only advises new writes: where existing chunks are is recorded in their manifests, so that nobody's correctness
//! depends on having the newest epoch (I7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use placement_types::{Boot, ChunkId, ClusterId, DiskId, Epoch, GroupId, NodeId, Profile, ReplicaId, SLOTS, Slot, ZoneName};

/// # Invariants
/// Every disk's node is in `nodes`; every ring row names disks of the map, none twice; `slots` has [`SLOTS`] entries, each a
/// key of `groups`; replica ids are unique, below `next_replica` and never reused; nothing that was removed is in the map;
/// `boots` names nodes of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    /// Counts what operators changed (disks taken in, drained, weighed, removed; the profile): a change that was planned on
    /// another layout is refused, so that nobody applies what he was not shown.
    pub layout: u64,
    /// The default k+m of new chunks.
    pub profile: Profile,
    pub settings: ClusterSettings,
    /// The replica id of the next node that joins: ids are never used twice, also not after their node was removed.
    pub next_replica: ReplicaId,
    pub nodes: BTreeMap<NodeId, Node>,
    pub disks: BTreeMap<DiskId, Disk>,
    pub ring: Ring,
    /// The nodes that are to be the voters of every Raft group, the system group included.
    pub groups: BTreeMap<GroupId, Vec<NodeId>>,
    /// Groups whose voters are not the first ones any more. A node that finds itself named in one of them must not create it,
    /// with what it takes for the first members: it waits to be brought in by the group's leader.
    pub moved_groups: BTreeSet<GroupId>,
    /// The metadata group of every slot.
    pub slots: Vec<GroupId>,
    /// Nodes that were removed: they are refused whatever they come with.
    pub removed_nodes: BTreeSet<NodeId>,
    /// Disks that were removed: their ids are never taken in again.
    pub removed_disks: BTreeSet<DiskId>,
    /// The run of each node that claimed it last: no other process is that node.
    pub boots: BTreeMap<NodeId, Boot>,
}

/// What operators may set for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSettings {
    /// How long a node may be down, or a disk dead, before its shards are rebuilt elsewhere.
    pub rebuild_after: Duration,
    /// Within this time every shard on every disk is read and checked once.
    pub scrub_cycle: Duration,
}

impl Default for ClusterSettings {
    /// Ten minutes: longer than a reboot, and short against the time in which a second disk fails. Two weeks: often enough that
    /// rot in one shard is found before it meets rot in another.
    fn default() -> Self {
        Self { rebuild_after: Duration::from_secs(600), scrub_cycle: Duration::from_secs(14 * 24 * 60 * 60) }
    }
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
    /// No heartbeat for too long. New shards go elsewhere; those it has are waited for.
    Down,
    /// Down for so long that nobody waits any more: its shards are rebuilt elsewhere. When it comes back after all, what the
    /// manifests still say it holds counts again.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: DiskId,
    pub node: NodeId,
    /// The size of its file system, as its node says.
    pub capacity_bytes: u64,
    /// What counts instead of the capacity in sharing out data, when an operator said so.
    pub weight_bytes: Option<u64>,
    pub role: DiskRole,
    pub state: DiskState,
}

/// What operators want of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskRole {
    /// Its node presented it; it holds nothing until an operator takes it in.
    Joining,
    InUse,
    /// Takes no new shards, and those it has are moved elsewhere.
    Draining,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    Good,
    /// Readable, but takes no new shards.
    ReadOnly,
    /// It failed or is missing: nothing is read from it or written to it.
    Dead,
    /// Dead for so long that nobody waits any more: its shards are rebuilt elsewhere.
    Lost,
}

impl Disk {
    /// A disk as its node presents it first: good, and weighed by its capacity.
    pub fn new(id: DiskId, node: NodeId, capacity_bytes: u64, role: DiskRole) -> Self {
        Self { id, node, capacity_bytes, weight_bytes: None, role, state: DiskState::Good }
    }

    /// Its weight in the ring.
    pub fn weight(&self) -> u64 {
        self.weight_bytes.unwrap_or(self.capacity_bytes).max(1)
    }
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
    #[error("two nodes have the replica id {replica}, or it was never given out")]
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
    #[error("node or disk of the map was removed from it before")]
    Removed,
    #[error("node {node} was claimed but is not in the map")]
    Claimed { node: NodeId },
}

impl ClusterMap {
    /// The map of epoch 1 before anything is in it.
    pub fn empty(cluster: ClusterId, profile: Profile) -> Self {
        Self {
            cluster,
            epoch: Epoch(1),
            layout: 1,
            profile,
            settings: ClusterSettings::default(),
            next_replica: ReplicaId(1),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            ring: Ring::default(),
            groups: BTreeMap::new(),
            moved_groups: BTreeSet::new(),
            slots: Vec::new(),
            removed_nodes: BTreeSet::new(),
            removed_disks: BTreeSet::new(),
            boots: BTreeMap::new(),
        }
    }

    /// Checks the invariants of the type. A map without a ring (no rows at all) passes: nothing can be written with it.
    pub fn check(&self) -> Result<(), InvalidMap> {
        let mut replicas = BTreeSet::new();
        let bad_replica = |node: &&Node| node.replica.0 == 0 || node.replica >= self.next_replica;
        if let Some(node) = self.nodes.values().find(|node| bad_replica(node) || !replicas.insert(node.replica)) {
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
        if let Some(node) = self.boots.keys().find(|node| !self.nodes.contains_key(node)) {
            return Err(InvalidMap::Claimed { node: *node });
        }
        let removed = self.removed_nodes.iter().any(|node| self.nodes.contains_key(node))
            || self.removed_disks.iter().any(|disk| self.disks.contains_key(disk));
        if removed { Err(InvalidMap::Removed) } else { Ok(()) }
    }

    /// Whether both maps say the same about where shards belong and where they can be had: then what was found out about
    /// chunks by the one holds by the other.
    pub fn places_like(&self, other: &ClusterMap) -> bool {
        let standing = |map: &ClusterMap, disk: DiskId| {
            let role = map.disks.get(&disk).map(|disk| disk.role);
            (role, map.is_home(disk), map.keeps_shards(disk), map.serves_shards(disk), map.takes_shards(disk))
        };
        // A disk that was kept for a moment and is drained again looks as before, and was written to in between.
        self.layout == other.layout
            && self.profile == other.profile
            && self.disks.len() == other.disks.len()
            && self.disks.keys().all(|disk| standing(self, *disk) == standing(other, *disk))
            && self.ring == other.ring
    }

    /// Whether a run of a node is over for good: a later one claimed the node, another one of the same number, or the node was
    /// removed. A run that is later than the last claim may be about to claim it: it is not.
    pub fn is_superseded(&self, node: NodeId, boot: Boot) -> bool {
        let later = |claimed: &Boot| claimed.number > boot.number || (claimed.number == boot.number && *claimed != boot);
        self.boots.get(&node).is_some_and(later) || self.removed_nodes.contains(&node)
    }

    /// The metadata group that owns a slot.
    pub fn group_of(&self, slot: Slot) -> GroupId {
        self.slots[usize::from(slot.0 % SLOTS)]
    }

    /// The groups that hold the metadata of objects: all but the system group.
    pub fn metadata_groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied().filter(|group| *group != GroupId::SYSTEM)
    }

    pub fn node_of_disk(&self, disk: DiskId) -> Option<&Node> {
        self.nodes.get(&self.disks.get(&disk)?.node)
    }

    pub fn node_by_replica(&self, replica: ReplicaId) -> Option<&Node> {
        self.nodes.values().find(|node| node.replica == replica)
    }

    /// Whether a disk may take new shards: it is in use and good, and its node is up.
    pub fn takes_shards(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|entry| {
            entry.role == DiskRole::InUse
                && entry.state == DiskState::Good
                && self.nodes.get(&entry.node).is_some_and(|node| node.state == NodeState::Up)
        })
    }

    /// Whether shards on a disk may be read now: it is not dead and its node is up.
    pub fn serves_shards(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|entry| {
            matches!(entry.state, DiskState::Good | DiskState::ReadOnly)
                && self.nodes.get(&entry.node).is_some_and(|node| node.state == NodeState::Up)
        })
    }

    /// Whether the shards of a disk are to be had, now or after a wait: it is in the map, and neither it nor its node was
    /// given up.
    pub fn keeps_shards(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|entry| {
            entry.state != DiskState::Lost && self.nodes.get(&entry.node).is_some_and(|node| node.state != NodeState::Lost)
        })
    }

    /// Whether a disk is where shards belong: in use, and not given up. Full and absent ones are, as they come round.
    pub fn is_home(&self, disk: DiskId) -> bool {
        self.keeps_shards(disk) && self.disks[&disk].role == DiskRole::InUse
    }
}
