//! What a change of the cluster would move, and what it would leave: for an operator to see before deciding.

use std::collections::BTreeMap;

use placement_types::DiskId;

use crate::cluster_map::{ClusterMap, DiskRole};

/// The difference between two maps.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Partitions whose row has other disks.
    pub partitions_moved: usize,
    pub slots_moved: usize,
    pub slots: usize,
    /// About how many bytes of shards move, if every slot holds as much as any other.
    pub bytes_moved: u64,
    pub balance: Balance,
    pub tolerance_before: Tolerance,
    pub tolerance_after: Tolerance,
}

/// How evenly the ring fills the disks in use: 1.0 is exactly in proportion to weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    pub fullest: f64,
    pub emptiest: f64,
}

/// How many of each may be lost at once, whichever they are, so that every chunk written by the ring can still be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    pub disks: usize,
    pub nodes: usize,
    pub zones: usize,
}

impl Plan {
    /// `stored_bytes`: what all shards of the cluster take on disk now.
    pub fn between(before: &ClusterMap, after: &ClusterMap, stored_bytes: u64) -> Plan {
        let (mut partitions_moved, mut slots_moved) = (0, 0);
        for (old, new) in before.ring.rows.iter().zip(&after.ring.rows) {
            let moved = new.iter().filter(|disk| !old.contains(disk)).count();
            slots_moved += moved;
            partitions_moved += usize::from(moved > 0);
        }
        let slots: usize = after.ring.rows.iter().map(Vec::len).sum();
        let bytes_moved = u128::from(stored_bytes) * slots_moved as u128 / slots.max(1) as u128;
        Plan {
            partitions_moved,
            slots_moved,
            slots,
            bytes_moved: u64::try_from(bytes_moved).unwrap_or(u64::MAX),
            balance: Balance::of(after),
            tolerance_before: Tolerance::of(before),
            tolerance_after: Tolerance::of(after),
        }
    }
}

impl Balance {
    pub fn of(map: &ClusterMap) -> Balance {
        let in_use = || map.disks.values().filter(|disk| disk.role == DiskRole::InUse);
        let mut loads: BTreeMap<DiskId, u64> = in_use().map(|disk| (disk.id, 0)).collect();
        for disk in map.ring.rows.iter().flatten() {
            *loads.entry(*disk).or_default() += 1;
        }
        let slots = loads.values().sum::<u64>() as f64;
        let capacity = in_use().map(|disk| disk.weight() as f64).sum::<f64>();
        let ratio = |(disk, load): (&DiskId, &u64)| {
            let weight = map.disks.get(disk).map_or(1.0, |disk| disk.weight() as f64);
            if slots == 0.0 { 0.0 } else { *load as f64 / slots / (weight / capacity) }
        };
        let ratios: Vec<f64> = loads.iter().map(ratio).collect();
        Balance {
            fullest: ratios.iter().copied().fold(0.0, f64::max),
            emptiest: ratios.iter().copied().reduce(f64::min).unwrap_or(0.0),
        }
    }
}

impl Tolerance {
    pub fn of(map: &ClusterMap) -> Tolerance {
        let parity = map.profile.parity();
        let node_of = |disk: &DiskId| map.disks.get(disk).map(|disk| disk.node);
        let zone_of = |disk: &DiskId| map.node_of_disk(*disk).map(|node| &node.zone);
        let rows = || map.ring.rows.iter();
        Tolerance {
            disks: parity.min(rows().map(|row| survives(row.iter(), parity)).min().unwrap_or(0)),
            nodes: rows().map(|row| survives(row.iter().map(node_of), parity)).min().unwrap_or(0),
            zones: rows().map(|row| survives(row.iter().map(zone_of), parity)).min().unwrap_or(0),
        }
    }
}

/// How many holders of a row's shards may be lost, the fullest first, before more than `parity` shards are.
fn survives<T: Ord>(holders: impl Iterator<Item = T>, parity: usize) -> usize {
    let mut shards: BTreeMap<T, usize> = BTreeMap::new();
    for holder in holders {
        *shards.entry(holder).or_default() += 1;
    }
    let mut counts: Vec<usize> = shards.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let mut lost = 0;
    counts.into_iter().take_while(|count| (lost + count <= parity).then(|| lost += count).is_some()).count()
}

#[cfg(test)]
mod tests {
    use placement_types::{Timestamp, TxnId};

    use super::*;
    use crate::state::SystemState;
    use crate::state::tests::{formed, new_disk};
    use crate::system::{LayoutChange, NewNode, SystemChange, SystemCommand};

    #[test]
    fn a_new_disks_share_is_what_moves() {
        let before = formed(3, 2, "2+1");
        let node = before.nodes.values().next().unwrap();
        let mut disks: Vec<_> = before.disks.values().filter(|disk| disk.node == node.id).map(|disk| new_disk(disk.id)).collect();
        disks.push(new_disk(DiskId::from_u128(99)));
        let new = NewNode { node: node.id, address: node.address.clone(), zone: node.zone.clone(), disks };
        let mut state = SystemState::with_map(before.clone());
        let take_in = LayoutChange::TakeIn { disks: vec![DiskId::from_u128(99)] };
        for change in [SystemChange::Register { node: new }, SystemChange::SetLayout { planned_on: 1, change: take_in }] {
            let txn = TxnId::from_u128(state.map.as_ref().unwrap().disks.len() as u128);
            state.apply(&SystemCommand { txn, time: Timestamp::default(), change });
        }
        let plan = Plan::between(&before, state.map.as_ref().unwrap(), 9_000_000);
        // Every node is in every row, so the third disk of one takes a third of that node's slots.
        assert_eq!((plan.slots, plan.slots_moved, plan.partitions_moved), (192, 21, 21));
        assert_eq!(plan.bytes_moved, 9_000_000 * 21 / 192);
        assert_eq!(plan.tolerance_before, Tolerance { disks: 1, nodes: 1, zones: 0 });
        assert_eq!(plan.tolerance_after, plan.tolerance_before);
        assert!(plan.balance.fullest < 1.2 && plan.balance.emptiest > 0.75, "{:?}", plan.balance);
    }

    #[test]
    fn tolerance_counts_the_worst_losses() {
        let check = |nodes, disks_per_node, profile: &str, disks: usize, lost_nodes: usize| {
            let tolerance = Tolerance::of(&formed(nodes, disks_per_node, profile));
            assert_eq!((tolerance.disks, tolerance.nodes), (disks, lost_nodes), "{profile} on {nodes} nodes");
        };
        check(6, 1, "4+2", 2, 2);
        check(3, 2, "4+2", 2, 1);
        check(1, 6, "4+2", 2, 0);
        check(1, 1, "1+0", 0, 0);
    }
}
