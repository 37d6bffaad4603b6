//! Where a new chunk's shards go: its ring row, around whatever cannot take them now.
//!
//! The plan is advice: the chunk's manifest entry records the disks that really hold its shards, so nobody has to agree on a
//! plan, and one made from an old map does no harm (I7).

use std::collections::{BTreeMap, BTreeSet};

use placement_types::{ChunkId, DiskId, NodeId, Profile};

use crate::cluster_map::ClusterMap;
use crate::mix::mix;
use crate::profile::least_cap;
use crate::topology::Topology;

impl ClusterMap {
    /// The disk for each of the chunk's k+m slots, none twice, all able to take shards.
    ///
    /// A slot whose disk in the row is down, full or dead goes to the disk that the chunk's hash ranks first among those that
    /// keep the row's shards apart: within the zone cap and the node cap while any disk allows it, else wherever the fewest
    /// other shards are. A slot is `None` when there are not enough disks; the caller decides whether the rest is a quorum.
    pub fn plan_write(&self, chunk: ChunkId, profile: Profile) -> Vec<Option<DiskId>> {
        self.plan(chunk, profile, |disk| self.takes_shards(disk))
    }

    /// Where the chunk's shards belong, by slot: the same as where a write would put them, if every disk were back and had
    /// room that is in use and not given up. What is elsewhere is moved there.
    pub fn plan_home(&self, chunk: ChunkId, profile: Profile) -> Vec<Option<DiskId>> {
        self.plan(chunk, profile, |disk| self.is_home(disk))
    }

    /// Whether a chunk of this profile would get all of its shards now, and none of several nodes more than m of them.
    pub fn can_take(&self, profile: Profile) -> bool {
        let mut taking: BTreeMap<NodeId, usize> = BTreeMap::new();
        for disk in self.disks.values().filter(|disk| self.is_home(disk.id)) {
            *taking.entry(disk.node).or_default() += usize::from(self.takes_shards(disk.id));
        }
        let width = profile.width();
        let is_spread = || taking.len() <= 1 || least_cap(width, taking.values().copied()) <= profile.parity();
        taking.values().sum::<usize>() >= width && is_spread()
    }

    fn plan(&self, chunk: ChunkId, profile: Profile, eligible: impl Fn(DiskId) -> bool) -> Vec<Option<DiskId>> {
        let row = self.ring.row(chunk).iter().take(profile.width());
        let mut plan: Vec<Option<DiskId>> = row.map(|disk| eligible(*disk).then_some(*disk)).collect();
        plan.resize(profile.width(), None);
        if plan.iter().any(Option::is_none) {
            self.plan_around(chunk, profile, &eligible, &mut plan);
        }
        plan
    }

    fn plan_around(&self, chunk: ChunkId, profile: Profile, eligible: &dyn Fn(DiskId) -> bool, plan: &mut [Option<DiskId>]) {
        let eligible = self.disks.values().filter(|disk| eligible(disk.id));
        let topology = Topology::new(eligible.filter_map(|disk| Some((disk, self.nodes.get(&disk.node)?))));
        let caps = topology.caps(profile);
        let mut on_node = vec![0usize; topology.nodes().len()];
        let mut in_zone = vec![0usize; topology.zones().len()];
        let mut used: BTreeSet<usize> = plan.iter().flatten().filter_map(|disk| topology.index_of(*disk)).collect();
        for disk in &used {
            on_node[topology.disks()[*disk].node] += 1;
            in_zone[topology.disks()[*disk].zone] += 1;
        }
        // The same for every slot, so that each further slot takes the next in rank.
        let ranks: Vec<f64> = topology.disks().iter().map(|disk| rank(chunk, disk.id, disk.weight)).collect();
        for slot in plan.iter_mut().filter(|slot| slot.is_none()) {
            let free = (0..ranks.len()).filter(|disk| !used.contains(disk));
            let best = free.min_by(|a, b| {
                let crowd = |disk: usize| {
                    let disk = &topology.disks()[disk];
                    let (node, zone) = (on_node[disk.node] + 1, in_zone[disk.zone] + 1);
                    // Nodes fail more often than zones: surviving the loss of a node comes before evenness among zones.
                    (node > profile.parity(), zone.saturating_sub(caps.zone), node.saturating_sub(caps.node))
                };
                crowd(*a).cmp(&crowd(*b)).then(ranks[*a].total_cmp(&ranks[*b])).then(a.cmp(b))
            });
            let Some(disk) = best else { return };
            used.insert(disk);
            on_node[topology.disks()[disk].node] += 1;
            in_zone[topology.disks()[disk].zone] += 1;
            *slot = Some(topology.disks()[disk].id);
        }
    }
}

/// Weighted rendezvous hashing: the disk with the smallest rank wins, each with odds in proportion to its weight.
fn rank(chunk: ChunkId, disk: DiskId, weight: u64) -> f64 {
    let chunk_seed = mix(0, chunk.as_u128());
    let uniform = ((mix(chunk_seed, disk.as_u128()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln() / weight as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster_map::{DiskState, NodeState};
    use crate::state::tests::formed;

    fn chunk(number: u128) -> ChunkId {
        ChunkId::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    /// No disk twice, only disks that take shards; returns how many shards each node got.
    fn check_plan(map: &ClusterMap, plan: &[Option<DiskId>]) -> BTreeMap<NodeId, usize> {
        let mut by_node = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for disk in plan.iter().flatten() {
            assert!(seen.insert(*disk), "{disk} twice");
            assert!(map.takes_shards(*disk));
            *by_node.entry(map.disks[disk].node).or_insert(0) += 1;
        }
        by_node
    }

    #[test]
    fn a_healthy_clusters_plan_is_the_ring_row() {
        let map = formed(6, 2, "4+2");
        for number in 0..100 {
            let plan: Vec<DiskId> = map.plan_write(chunk(number), map.profile).into_iter().flatten().collect();
            assert_eq!(plan, map.ring.row(chunk(number)));
        }
    }

    #[test]
    fn only_the_slot_of_the_lost_disk_changes() {
        let mut map = formed(7, 2, "4+2");
        for number in 0..100 {
            let healthy = map.plan_write(chunk(number), map.profile);
            let lost = healthy[number as usize % 6].unwrap();
            map.disks.get_mut(&lost).unwrap().state = DiskState::Dead;
            let around = map.plan_write(chunk(number), map.profile);
            let changed: Vec<usize> = (0..6).filter(|slot| healthy[*slot] != around[*slot]).collect();
            assert_eq!(changed, [number as usize % 6]);
            assert!(check_plan(&map, &around).values().all(|shards| *shards == 1), "six nodes are left for six shards");
            map.disks.get_mut(&lost).unwrap().state = DiskState::Good;
        }
    }

    #[test]
    fn writes_around_a_node_spread_over_all_others() {
        let mut map = formed(7, 4, "4+2");
        let down = *map.nodes.keys().next().unwrap();
        map.nodes.get_mut(&down).unwrap().state = NodeState::Down;
        let mut taken: BTreeMap<DiskId, usize> = BTreeMap::new();
        for number in 0..2000 {
            let in_row = map.ring.row(chunk(number)).to_vec();
            for disk in map.plan_write(chunk(number), map.profile).into_iter().flatten().filter(|disk| !in_row.contains(disk)) {
                *taken.entry(disk).or_default() += 1;
            }
        }
        assert_eq!(taken.len(), 24, "every disk of the six other nodes takes a part");
        let (least, most) = (taken.values().min().unwrap(), taken.values().max().unwrap());
        assert!(most < &(least * 3), "{least} to {most}");
    }

    #[test]
    fn caps_yield_before_a_slot_stays_empty() {
        let mut map = formed(3, 2, "2+1");
        let down = *map.nodes.keys().next().unwrap();
        map.nodes.get_mut(&down).unwrap().state = NodeState::Down;
        for number in 0..50 {
            let plan = map.plan_write(chunk(number), map.profile);
            let mut shards: Vec<usize> = check_plan(&map, &plan).into_values().collect();
            shards.sort_unstable();
            assert_eq!(shards, [1, 2]);
        }
        map.nodes.values_mut().for_each(|node| node.state = NodeState::Down);
        assert_eq!(map.plan_write(chunk(1), map.profile), [None; 3]);
    }

    #[test]
    fn a_profile_wider_than_the_row_takes_more_disks() {
        let map = formed(6, 2, "2+1");
        let plan = map.plan_write(chunk(5), "4+2".parse().unwrap());
        assert!(check_plan(&map, &plan).values().all(|shards| *shards == 1));
        assert_eq!(plan.iter().flatten().count(), 6);
        assert_eq!(map.plan_write(chunk(5), "1+1".parse().unwrap()).len(), 2);
    }

    #[test]
    fn a_profile_is_taken_only_in_full_and_spread() {
        let mut map = formed(2, 4, "2+2");
        assert!(map.can_take(map.profile));
        assert!(!map.can_take("4+2".parse().unwrap()), "a node would hold three shards and may lose two");
        let first = *map.nodes.keys().next().unwrap();
        map.nodes.get_mut(&first).unwrap().state = NodeState::Down;
        assert!(!map.can_take(map.profile), "the other node has four disks, but they are one node's");

        let mut map = formed(1, 4, "2+2");
        assert!(map.can_take(map.profile));
        assert!(!map.can_take("3+2".parse().unwrap()));
        map.disks.values_mut().next().unwrap().state = DiskState::ReadOnly;
        assert!(!map.can_take(map.profile));
        assert!(map.can_take("2+1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_plan_takes_all_disks_it_can_get(lost in prop::collection::vec(any::<bool>(), 12), number: u128) {
            let mut map = formed(6, 2, "4+2");
            for (disk, lost) in map.disks.values_mut().zip(&lost) {
                disk.state = if *lost { DiskState::ReadOnly } else { DiskState::Good };
            }
            let good = lost.iter().filter(|lost| !**lost).count();
            let plan = map.plan_write(ChunkId::from_u128(number), map.profile);
            check_plan(&map, &plan);
            prop_assert_eq!(plan.iter().flatten().count(), good.min(6));
            let nodes = map.disks.values().filter(|disk| disk.state == DiskState::Good).map(|disk| disk.node);
            let nodes: BTreeSet<NodeId> = nodes.collect();
            if nodes.len() == 6 {
                prop_assert!(check_plan(&map, &plan).values().all(|shards| *shards == 1));
            }
        }
    }
}
