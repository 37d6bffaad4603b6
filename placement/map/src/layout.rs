//! What operators change about the cluster: disks come into use, are drained, weighed and removed, nodes leave, new chunks get
//! another profile.
//!
//! A change is a pure function from map to map, so that a plan shows exactly what applying will do ([`crate::plan`]). It never
//! loses a shard by itself: draining only says where shards do not belong any more, and the metadata groups move them. Only
//! removing a disk forgets what may still be on it, which is why its proposer first makes sure that nothing is.
//!
//! What would leave the cluster unable to keep its promise for new chunks is refused here, with a text for a person.

use std::collections::BTreeMap;

use placement_types::{DiskId, NodeId, Profile};

use crate::assign;
use crate::cluster_map::{ClusterMap, Disk, DiskRole, DiskState, NodeState};
use crate::limits::{NAMES_MAX, REMOVED_MAX};
use crate::profile::check_profile;
use crate::system::LayoutChange;
use crate::topology::Topology;

/// The map after a change, its ring one step on the way; `None` when nothing changes.
///
/// # Errors
/// Why the cluster as it is does not allow the change.
pub fn change(before: &ClusterMap, change: &LayoutChange) -> Result<Option<ClusterMap>, String> {
    let mut map = before.clone();
    match change {
        LayoutChange::TakeIn { disks } => {
            set_role(&mut map, disks, DiskRole::InUse, |disk| match disk.role {
                DiskRole::Joining | DiskRole::InUse => Ok(()),
                DiskRole::Draining => Err(format!("disk {} is being drained: keep it instead", disk.id)),
            })?;
            // More disks make no profile less bearable, but for one: that of a node that was alone and could not be lost at all.
            // It becomes one that suits several only once there are several.
        }
        LayoutChange::Drain { disks } => {
            set_role(&mut map, disks, DiskRole::Draining, |disk| match disk.role {
                DiskRole::InUse | DiskRole::Draining => Ok(()),
                DiskRole::Joining => Err(format!("disk {} is not in use: remove it instead", disk.id)),
            })?;
            check_bearable(&map, map.profile)?;
        }
        LayoutChange::Keep { disks } => set_role(&mut map, disks, DiskRole::InUse, |disk| match disk.role {
            DiskRole::InUse | DiskRole::Draining => Ok(()),
            DiskRole::Joining => Err(format!("disk {} is not in use: take it in instead", disk.id)),
        })?,
        LayoutChange::Weigh { disk, weight_bytes } => {
            if *weight_bytes == Some(0) {
                return Err("a weight of 0 is none: drain the disk instead".into());
            }
            map.disks.get_mut(disk).ok_or_else(|| format!("there is no disk {disk}"))?.weight_bytes = *weight_bytes;
        }
        LayoutChange::RemoveDisks { disks } => remove_disks(&mut map, disks)?,
        LayoutChange::RemoveNode { node } => remove_node(&mut map, *node)?,
        LayoutChange::SetProfile { profile } => {
            check_bearable(&map, *profile)?;
            map.profile = *profile;
        }
    }
    if map == *before {
        return Ok(None);
    }
    map.layout += 1;
    step_ring(&mut map);
    Ok(Some(map))
}

/// Moves the ring one step nearer to what the map asks for.
pub(crate) fn step_ring(map: &mut ClusterMap) {
    let topology = Topology::of(&map.nodes, &map.disks);
    map.ring = assign::build(map.ring.rows.len(), map.profile, &topology, Some(&map.ring));
}

/// The map once its ring is settled, for showing where a change leads.
pub fn settled(map: &ClusterMap) -> ClusterMap {
    let mut settled = map.clone();
    // Each step moves a slot of every row that is not settled, and no slot twice; the bound is far beyond that.
    for _ in 0..=RING_STEPS_MAX {
        let before = settled.ring.clone();
        step_ring(&mut settled);
        if settled.ring == before {
            break;
        }
    }
    settled
}

/// More steps than any ring takes to settle.
const RING_STEPS_MAX: usize = 1000;

/// Gives disks a role, if `check` has nothing against any of them.
fn set_role(
    map: &mut ClusterMap,
    disks: &[DiskId],
    role: DiskRole,
    check: impl Fn(&Disk) -> Result<(), String>,
) -> Result<(), String> {
    check_each(map, disks, check)?;
    for disk in disks {
        map.disks.get_mut(disk).expect("it was just checked").role = role;
    }
    Ok(())
}

fn check_each(map: &ClusterMap, disks: &[DiskId], check: impl Fn(&Disk) -> Result<(), String>) -> Result<(), String> {
    if disks.is_empty() || disks.len() > NAMES_MAX {
        return Err(format!("{} disks are named, 1 to {NAMES_MAX} can be", disks.len()));
    }
    disks.iter().try_for_each(|id| check(map.disks.get(id).ok_or_else(|| format!("there is no disk {id}"))?))
}

/// How many disks in use each node has.
pub fn disks_in_use(map: &ClusterMap) -> Vec<usize> {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for disk in map.disks.values().filter(|disk| disk.role == DiskRole::InUse) {
        *counts.entry(disk.node).or_default() += 1;
    }
    counts.into_values().collect()
}

fn check_bearable(map: &ClusterMap, profile: Profile) -> Result<(), String> {
    check_profile(profile, &disks_in_use(map)).map_err(|error| error.to_string())
}

fn remove_disks(map: &mut ClusterMap, disks: &[DiskId]) -> Result<(), String> {
    check_each(map, disks, |disk| {
        let gone = matches!(disk.state, DiskState::Dead | DiskState::Lost)
            || map.nodes.get(&disk.node).is_some_and(|node| node.state != NodeState::Up);
        if disk.role == DiskRole::InUse && !gone {
            return Err(format!("disk {} is in use: drain it first", disk.id));
        }
        Ok(())
    })?;
    if map.removed_disks.len() + disks.len() > REMOVED_MAX {
        return Err(format!("more than {REMOVED_MAX} disks would have been removed"));
    }
    for disk in disks {
        map.disks.remove(disk);
        map.removed_disks.insert(*disk);
    }
    Ok(())
}

fn remove_node(map: &mut ClusterMap, id: NodeId) -> Result<(), String> {
    if !map.nodes.contains_key(&id) {
        return Err(format!("there is no node {id}"));
    }
    if let Some(disk) = map.disks.values().find(|disk| disk.node == id) {
        return Err(format!("node {id} still has disk {}: remove its disks first", disk.id));
    }
    if let Some((group, _)) = map.groups.iter().find(|(_, voters)| voters.contains(&id)) {
        return Err(format!("node {id} still has a replica of metadata group {group}: it is moved once the node is drained"));
    }
    if map.removed_nodes.len() >= REMOVED_MAX {
        return Err(format!("more than {REMOVED_MAX} nodes would have been removed"));
    }
    map.nodes.remove(&id);
    map.boots.remove(&id);
    map.removed_nodes.insert(id);
    Ok(())
}

#[cfg(test)]
mod tests;
