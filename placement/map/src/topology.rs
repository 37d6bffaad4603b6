//! Disks in nodes in zones, numbered, with what each should hold: what placement decisions are computed from.
//!
//! Two caps keep a row's disks apart: no zone takes more than [`Caps::zone`] of them and no node more than [`Caps::node`].
//! They are the least that the topology allows, zones first; but where a zone would have to take more than m, losing it loses
//! data whatever is done, so that zones no longer count and the least cap for nodes comes first.
//!
//! [`Topology::targets`] shares slots out by capacity as far as the caps let it: what a small cap keeps a large disk from
//! taking, the others take in proportion. It computes in integers: every replica of the system group must get the same.

use std::collections::BTreeMap;

use placement_types::{DiskId, Profile, ZoneName};

use crate::cluster_map::{Disk, DiskRole, Node};
use crate::profile::least_cap;

/// # Invariants
/// `disks` and `nodes` are in ascending order of their ids, `zones` of their names; every index is in range; no node and no
/// zone is without disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    disks: Vec<PlacedDisk>,
    nodes: Vec<PlacedNode>,
    zones: Vec<PlacedZone>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedDisk {
    pub id: DiskId,
    pub node: usize,
    pub zone: usize,
    pub weight: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedNode {
    pub zone: usize,
    pub disks: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedZone {
    pub nodes: Vec<usize>,
}

/// How many disks of a row one zone and one node may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    pub zone: usize,
    pub node: usize,
}

impl Topology {
    /// Of the disks given; nodes and zones without any are left out, and so are disks without a node.
    pub fn new<'a>(disks: impl Iterator<Item = (&'a Disk, &'a Node)>) -> Self {
        let mut by_zone: BTreeMap<&ZoneName, BTreeMap<_, BTreeMap<DiskId, u64>>> = BTreeMap::new();
        for (disk, node) in disks {
            let nodes = by_zone.entry(&node.zone).or_default();
            nodes.entry(node.id).or_default().insert(disk.id, disk.weight());
        }
        let mut topology = Topology { disks: Vec::new(), nodes: Vec::new(), zones: Vec::new() };
        for (zone, nodes) in by_zone.into_values().enumerate() {
            let first = topology.nodes.len();
            for disks in nodes.into_values() {
                let node = topology.nodes.len();
                topology.disks.extend(disks.into_iter().map(|(id, weight)| PlacedDisk { id, node, zone, weight }));
                topology.nodes.push(PlacedNode { zone, disks: Vec::new() });
            }
            topology.zones.push(PlacedZone { nodes: (first..topology.nodes.len()).collect() });
        }
        topology.disks.sort_unstable_by_key(|disk| disk.id);
        for index in 0..topology.disks.len() {
            topology.nodes[topology.disks[index].node].disks.push(index);
        }
        topology
    }

    /// Of all disks of a map that are in use, whatever their state.
    pub fn of(nodes: &BTreeMap<placement_types::NodeId, Node>, disks: &BTreeMap<DiskId, Disk>) -> Self {
        let in_use = disks.values().filter(|disk| disk.role == DiskRole::InUse);
        Self::new(in_use.filter_map(|disk| Some((disk, nodes.get(&disk.node)?))))
    }

    pub(crate) fn disks(&self) -> &[PlacedDisk] {
        &self.disks
    }

    pub(crate) fn nodes(&self) -> &[PlacedNode] {
        &self.nodes
    }

    pub(crate) fn zones(&self) -> &[PlacedZone] {
        &self.zones
    }

    pub(crate) fn index_of(&self, disk: DiskId) -> Option<usize> {
        self.disks.binary_search_by_key(&disk, |disk| disk.id).ok()
    }

    /// How many disks a row of this profile has: all k+m, or all disks there are.
    pub fn row_width(&self, profile: Profile) -> usize {
        profile.width().min(self.disks.len())
    }

    pub fn caps(&self, profile: Profile) -> Caps {
        let width = self.row_width(profile);
        let on_node = |node: usize, cap: usize| self.nodes[node].disks.len().min(cap);
        let in_zone = |zone: &PlacedZone, cap: usize| zone.nodes.iter().map(|node| on_node(*node, cap)).sum::<usize>();
        let all_of = |zone: &PlacedZone| in_zone(zone, usize::MAX);
        let fits = |zone_cap: usize, node_cap: usize| {
            self.zones.iter().map(|zone| in_zone(zone, node_cap).min(zone_cap)).sum::<usize>() >= width
        };
        let least = |fits: &dyn Fn(usize) -> bool| (1..=width).find(|cap| fits(*cap)).unwrap_or(width);
        let zone = least_cap(width, self.zones.iter().map(all_of));
        if zone <= profile.parity() {
            return Caps { zone, node: least(&|node| fits(zone, node)) };
        }
        let node = least(&|node| fits(width, node));
        Caps { zone: least(&|zone| fits(zone, node)), node }
    }

    /// How many slots of `partitions` rows each disk should have, so that loads are proportional to capacities as far as
    /// `caps` allow. They sum up to `partitions * width`.
    pub(crate) fn targets(&self, partitions: usize, width: usize, caps: Caps) -> Vec<u64> {
        let rows = partitions as u64;
        let node_max = |node: &PlacedNode| rows * node.disks.len().min(caps.node) as u64;
        let zone_max = |zone: &PlacedZone| {
            let nodes: u64 = zone.nodes.iter().map(|node| node_max(&self.nodes[*node])).sum();
            nodes.min(rows * caps.zone as u64)
        };
        let wished = self.wished_loads(rows, width as u64, &node_max, &zone_max);
        let mut targets = vec![0; self.disks.len()];
        let zone_wishes: Vec<u128> = wished.zones;
        let zone_caps: Vec<u64> = self.zones.iter().map(zone_max).collect();
        let zone_targets = apportion(rows * width as u64, &zone_wishes, &zone_caps);
        for (zone, zone_target) in self.zones.iter().zip(zone_targets) {
            let wishes: Vec<u128> = zone.nodes.iter().map(|node| wished.nodes[*node]).collect();
            let node_caps: Vec<u64> = zone.nodes.iter().map(|node| node_max(&self.nodes[*node])).collect();
            for (node, node_target) in zone.nodes.iter().zip(apportion(zone_target, &wishes, &node_caps)) {
                let disks = &self.nodes[*node].disks;
                let wishes: Vec<u128> = disks.iter().map(|disk| wished.disks[*disk]).collect();
                for (disk, target) in disks.iter().zip(apportion(node_target, &wishes, &vec![rows; disks.len()])) {
                    targets[*disk] = target;
                }
            }
        }
        targets
    }

    /// The loads at the lowest water level at which everything fits: each disk's is its weight times the level, cut off by
    /// what it, its node and its zone can take at most. In units of 2^-20 slots.
    fn wished_loads(
        &self,
        rows: u64,
        width: u64,
        node_max: &dyn Fn(&PlacedNode) -> u64,
        zone_max: &dyn Fn(&PlacedZone) -> u64,
    ) -> Wished {
        // Weights are scaled to at most 2^32, so that weight x level stays below 2^128 for any capacities: the level never
        // exceeds rows x 2^20 x total weight < 2^(18 + 20 + 45).
        let heaviest = self.disks.iter().map(|disk| u128::from(disk.weight)).max().unwrap_or(1);
        let weights: Vec<u128> = self.disks.iter().map(|disk| ((u128::from(disk.weight) << 32) / heaviest).max(1)).collect();
        let total: u128 = weights.iter().sum();
        let loads_at = |level: u128| {
            let disks: Vec<u128> = weights.iter().map(|weight| (weight * level / total).min(scaled(rows))).collect();
            let nodes: Vec<u128> = self
                .nodes
                .iter()
                .map(|node| node.disks.iter().map(|disk| disks[*disk]).sum::<u128>().min(scaled(node_max(node))))
                .collect();
            let zones: Vec<u128> = self
                .zones
                .iter()
                .map(|zone| zone.nodes.iter().map(|node| nodes[*node]).sum::<u128>().min(scaled(zone_max(zone))))
                .collect();
            Wished { disks, nodes, zones }
        };
        let needed = scaled(rows * width);
        let (mut low, mut high) = (0u128, scaled(rows) * total.max(1));
        while low < high {
            let level = low + (high - low) / 2;
            if loads_at(level).zones.iter().sum::<u128>() >= needed {
                high = level;
            } else {
                low = level + 1;
            }
        }
        loads_at(low)
    }
}

struct Wished {
    disks: Vec<u128>,
    nodes: Vec<u128>,
    zones: Vec<u128>,
}

fn scaled(slots: u64) -> u128 {
    u128::from(slots) << 20
}

/// Shares `total` out in proportion to the wishes, nobody above its maximum, rounded by largest remainder.
///
/// # Panics
/// When the maximums do not add up to `total`.
fn apportion(total: u64, wishes: &[u128], maximums: &[u64]) -> Vec<u64> {
    assert!(maximums.iter().sum::<u64>() >= total, "the caps leave room for every slot");
    let mut shares = vec![0u64; wishes.len()];
    let mut open: Vec<usize> = (0..wishes.len()).collect();
    let mut left = total;
    // Whoever would exceed its maximum gets just that, and the others share the rest; again, until nobody does.
    loop {
        let weight: u128 = open.iter().map(|index| wishes[*index].max(1)).sum();
        let exceeds = |index: &usize| u128::from(left) * wishes[*index].max(1) > u128::from(maximums[*index]) * weight;
        let (full, rest): (Vec<usize>, Vec<usize>) = open.iter().copied().partition(exceeds);
        if full.is_empty() {
            break;
        }
        for index in &full {
            shares[*index] = maximums[*index];
            left -= maximums[*index];
        }
        open = rest;
    }
    let weight: u128 = open.iter().map(|index| wishes[*index].max(1)).sum();
    let mut remainders = Vec::with_capacity(open.len());
    let mut given = 0;
    for index in open {
        let exact = u128::from(left) * wishes[index].max(1);
        shares[index] = u64::try_from(exact / weight).expect("a share is at most the whole");
        given += shares[index];
        remainders.push((std::cmp::Reverse(exact % weight), index));
    }
    remainders.sort_unstable();
    for (_, index) in remainders.into_iter().take(usize::try_from(left - given).expect("less than one for each")) {
        shares[index] += 1;
    }
    shares
}
