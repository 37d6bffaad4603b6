//! The first map of a cluster, made once by the command that founds it.

use std::collections::{BTreeMap, BTreeSet};

use placement_types::{ClusterId, DiskId, GroupId, NodeId, Profile, ReplicaId, SLOTS, ZoneName};

use crate::assign;
use crate::cluster_map::{ClusterMap, Disk, DiskRole, Node, NodeState};
use crate::limits::{DISKS_MAX, FOUNDING_NODES_MAX, GROUPS_MAX, PARTITIONS_MAX, TEXT_BYTES_MAX, VOTERS_MAX};
use crate::profile::{check_profile, default_profile};
use crate::system::{FIRST_METADATA_GROUP, NewNode};
use crate::topology::Topology;

/// The nodes that hold the system group at first: the first three in founding order. Who founds a cluster creates group 0 on
/// exactly these before the command that makes the map.
pub fn system_voters(nodes: &[NodeId]) -> &[NodeId] {
    &nodes[..nodes.len().min(VOTERS_MAX)]
}

/// Founding order: by id, but so that as many zones as possible come before any zone comes again. The first three nodes hold
/// the system group and should not fail together.
pub fn spread_over_zones(mut nodes: Vec<NewNode>) -> Vec<NewNode> {
    nodes.sort_unstable_by_key(|node| node.node);
    let mut seen: BTreeMap<ZoneName, usize> = BTreeMap::new();
    let mut rounds: Vec<(usize, NewNode)> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let round = seen.entry(node.zone.clone()).or_default();
        rounds.push((*round, node));
        *round += 1;
    }
    rounds.sort_by_key(|(round, node)| (*round, node.node));
    rounds.into_iter().map(|(_, node)| node).collect()
}

/// The map of epoch 1, or why there cannot be one.
pub(crate) fn found(
    cluster: ClusterId,
    nodes: &[NewNode],
    profile: Option<Profile>,
    partitions: u32,
    groups: u32,
) -> Result<ClusterMap, String> {
    if nodes.is_empty() || nodes.len() > FOUNDING_NODES_MAX {
        return Err(format!("{} nodes cannot found a cluster, 1 to {FOUNDING_NODES_MAX} can", nodes.len()));
    }
    if !partitions.is_power_of_two() || partitions > PARTITIONS_MAX {
        return Err(format!("{partitions} partitions are not a power of two up to {PARTITIONS_MAX}"));
    }
    if !(1..=GROUPS_MAX).contains(&groups) {
        return Err(format!("{groups} metadata groups are not 1 to {GROUPS_MAX}"));
    }
    let (nodes_by_id, disks) = place(nodes)?;
    let disks_per_node: Vec<usize> = nodes.iter().map(|node| node.disks.len()).collect();
    let profile = match profile {
        Some(profile) => profile,
        None => default_profile(&disks_per_node).ok_or("no node has a disk")?,
    };
    check_profile(profile, &disks_per_node).map_err(|error| error.to_string())?;
    let order: Vec<NodeId> = nodes.iter().map(|node| node.node).collect();
    let mut voters = BTreeMap::from([(GroupId::SYSTEM, system_voters(&order).to_vec())]);
    let zones: Vec<&ZoneName> = nodes.iter().map(|node| &node.zone).collect();
    for index in 0..groups {
        voters.insert(GroupId(FIRST_METADATA_GROUP.0 + index), group_voters(&order, &zones, index as usize));
    }
    let slots = (0..SLOTS).map(|slot| GroupId(FIRST_METADATA_GROUP.0 + u32::from(slot) % groups)).collect();
    let topology = Topology::of(&nodes_by_id, &disks);
    let ring = assign::build(partitions as usize, profile, &topology, None);
    let map = ClusterMap {
        next_replica: ReplicaId(nodes.len() as u64 + 1),
        nodes: nodes_by_id,
        disks,
        ring,
        groups: voters,
        slots,
        ..ClusterMap::empty(cluster, profile)
    };
    map.check().expect("what was checked above makes a sound map");
    Ok(map)
}

type Placed = (BTreeMap<NodeId, Node>, BTreeMap<DiskId, Disk>);

fn place(nodes: &[NewNode]) -> Result<Placed, String> {
    let (mut nodes_by_id, mut disks) = Placed::default();
    for (replica, new) in (1..).zip(nodes) {
        check_node(new)?;
        let node = Node {
            id: new.node,
            replica: ReplicaId(replica),
            address: new.address.clone(),
            zone: new.zone.clone(),
            state: NodeState::Up,
        };
        if nodes_by_id.insert(new.node, node).is_some() {
            return Err(format!("node {} is named twice", new.node));
        }
        for disk in &new.disks {
            let entry = Disk::new(disk.disk, new.node, disk.capacity_bytes, DiskRole::InUse);
            if disks.insert(disk.disk, entry).is_some() {
                return Err(format!("disk {} is named twice", disk.disk));
            }
        }
    }
    if disks.len() > DISKS_MAX {
        return Err(format!("{} disks are more than {DISKS_MAX}", disks.len()));
    }
    Ok((nodes_by_id, disks))
}

/// What a node says of itself must be usable as it stands.
pub(crate) fn check_node(node: &NewNode) -> Result<(), String> {
    if node.address.is_empty() || node.address.len() > TEXT_BYTES_MAX {
        return Err(format!("the address of node {} has {} bytes, not 1 to {TEXT_BYTES_MAX}", node.node, node.address.len()));
    }
    let distinct: BTreeSet<DiskId> = node.disks.iter().map(|disk| disk.disk).collect();
    if distinct.len() != node.disks.len() {
        return Err(format!("node {} names a disk twice", node.node));
    }
    Ok(())
}

/// Three nodes from the `index`-th on, those of further zones first.
fn group_voters(order: &[NodeId], zones: &[&ZoneName], index: usize) -> Vec<NodeId> {
    let walk = || (0..order.len()).map(move |step| (index + step) % order.len());
    let mut chosen: Vec<usize> = Vec::with_capacity(VOTERS_MAX);
    for position in walk() {
        if chosen.len() < VOTERS_MAX && chosen.iter().all(|other| zones[*other] != zones[position]) {
            chosen.push(position);
        }
    }
    for position in walk() {
        if chosen.len() < VOTERS_MAX && !chosen.contains(&position) {
            chosen.push(position);
        }
    }
    chosen.into_iter().map(|position| order[position]).collect()
}
