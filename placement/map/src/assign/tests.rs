use std::collections::{BTreeMap, BTreeSet};

use placement_types::codec::Encode;
use placement_types::{DiskId, NodeId, ReplicaId, ZoneName};
use proptest::prelude::*;

use super::*;
use crate::cluster_map::{Disk, DiskRole, Node, NodeState};

/// Nodes and disks to build rings for.
#[derive(Debug, Clone, Default)]
struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<DiskId, Disk>,
}

impl Cluster {
    /// Ids are scattered as random ones would be, so that no order is accidental.
    fn add_node(&mut self, zone: &str, capacities: &[u64]) {
        let number = self.nodes.len() as u128 + 1;
        let id = NodeId::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let zone = ZoneName::parse(zone).unwrap();
        let address = format!("node-{number}:9100");
        self.nodes.insert(id, Node { id, replica: ReplicaId(number as u64), address, zone, state: NodeState::Up });
        capacities.iter().for_each(|capacity| self.add_disk(id, *capacity));
    }

    fn add_disk(&mut self, node: NodeId, capacity_bytes: u64) {
        let number = self.disks.len() as u128 + 1;
        let id = DiskId::from_u128(number.wrapping_mul(0xc2b2_ae3d_27d4_eb4f_1656_67b1_9e37_79f9));
        self.disks.insert(id, Disk::new(id, node, capacity_bytes, DiskRole::InUse));
    }

    fn uniform(nodes: usize, disks_per_node: usize) -> Self {
        let mut cluster = Self::default();
        (0..nodes).for_each(|_| cluster.add_node("default", &vec![1 << 40; disks_per_node]));
        cluster
    }

    fn topology(&self) -> Topology {
        Topology::of(&self.nodes, &self.disks)
    }

    fn build(&self, partitions: usize, profile: Profile, previous: Option<&Ring>) -> Ring {
        build(partitions, profile, &self.topology(), previous)
    }

    /// Steps until nothing moves; returns the ring and how many slots moved.
    fn settle(&self, profile: Profile, ring: &Ring) -> (Ring, usize) {
        let (mut ring, mut moves) = (ring.clone(), 0);
        for _ in 0..100 {
            let next = self.build(0, profile, Some(&ring));
            moves += check_step(&ring, &next);
            if next == ring {
                return (ring, moves);
            }
            ring = next;
        }
        panic!("the ring does not settle");
    }

    fn loads(&self, ring: &Ring) -> BTreeMap<DiskId, i64> {
        let mut loads: BTreeMap<DiskId, i64> = self.disks.keys().map(|disk| (*disk, 0)).collect();
        for disk in ring.rows.iter().flatten() {
            *loads.get_mut(disk).expect("rows name disks of the cluster") += 1;
        }
        loads
    }

    fn targets(&self, profile: Profile, partitions: usize) -> BTreeMap<DiskId, i64> {
        let topology = self.topology();
        let targets = topology.targets(partitions, topology.row_width(profile), topology.caps(profile));
        self.disks.keys().copied().zip(targets.into_iter().map(|target| target as i64)).collect()
    }

    /// Rows are as wide as they should be, without repetitions, and respect the caps.
    fn check_rows(&self, profile: Profile, ring: &Ring) {
        let topology = self.topology();
        let caps = topology.caps(profile);
        for row in &ring.rows {
            assert_eq!(row.len(), topology.row_width(profile));
            assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), row.len(), "a disk twice in {row:?}");
            let (mut by_node, mut by_zone) = (BTreeMap::new(), BTreeMap::new());
            for disk in row {
                let node = &self.nodes[&self.disks[disk].node];
                *by_node.entry(node.id).or_insert(0) += 1;
                *by_zone.entry(&node.zone).or_insert(0) += 1;
            }
            assert!(by_node.values().all(|count| *count <= caps.node), "{caps:?} {by_node:?}");
            assert!(by_zone.values().all(|count| *count <= caps.zone), "{caps:?} {by_zone:?}");
        }
    }
}

/// At most one slot of a partition changed, in place. Returns how many partitions changed.
fn check_step(before: &Ring, after: &Ring) -> usize {
    assert_eq!(before.rows.len(), after.rows.len());
    let changed = |(old, new): (&Vec<DiskId>, &Vec<DiskId>)| old.iter().zip(new).filter(|(a, b)| a != b).count();
    let changes: Vec<usize> = before.rows.iter().zip(&after.rows).map(changed).collect();
    assert!(changes.iter().all(|slots| *slots <= 1), "a partition moved more than one slot in a step");
    changes.iter().sum()
}

fn profile(text: &str) -> Profile {
    text.parse().unwrap()
}

#[test]
fn the_builder_never_changes() {
    // If this fails, replicas of the old and the new build would compute different rings from the same command. Give the
    // command a version instead, and keep the old builder for old commands.
    let fingerprint = |ring: &Ring| {
        ring.to_encoded().chunks(16).fold(0, |sum, bytes| {
            let mut block = [0; 16];
            block[..bytes.len()].copy_from_slice(bytes);
            mix(sum, u128::from_be_bytes(block))
        })
    };
    let mut cluster = Cluster::uniform(4, 2);
    let first = cluster.build(256, profile("4+2"), None);
    cluster.add_node("other", &[3 << 40, 1 << 40]);
    let second = cluster.build(256, profile("4+2"), Some(&first));
    let fresh = cluster.build(64, profile("2+1"), None);
    let fingerprints = [fingerprint(&first), fingerprint(&second), fingerprint(&fresh)];
    assert_eq!(fingerprints.map(|print| format!("{print:016x}")), ["1bb65ed3d541158b", "788917751f35a6e0", "b473d824b791d65f"]);
}

#[test]
fn a_first_ring_gives_every_disk_its_exact_share() {
    let check = |cluster: &Cluster, text: &str| {
        let ring = cluster.build(512, profile(text), None);
        cluster.check_rows(profile(text), &ring);
        assert_eq!(cluster.loads(&ring), cluster.targets(profile(text), 512));
    };
    check(&Cluster::uniform(1, 1), "1+0");
    check(&Cluster::uniform(1, 12), "4+2");
    check(&Cluster::uniform(3, 1), "2+1");
    check(&Cluster::uniform(5, 3), "3+2");
    check(&Cluster::uniform(25, 4), "8+4");
    let mut uneven = Cluster::default();
    for (zone, capacities) in [("a", &[10, 20][..]), ("a", &[30]), ("b", &[5, 5, 5]), ("c", &[40, 1]), ("c", &[7])] {
        uneven.add_node(zone, capacities);
    }
    for text in ["1+1", "2+1", "3+2", "4+2"] {
        check(&uneven, text);
    }
}

#[test]
fn shares_follow_capacity_as_far_as_the_caps_allow() {
    let mut cluster = Cluster::uniform(2, 1);
    cluster.add_node("default", &[10 << 40]);
    let three = Vec::from_iter(cluster.targets(profile("2+1"), 100).into_values());
    assert_eq!(three, [100, 100, 100], "2+1 on three nodes: every node in every row");
    cluster.add_node("default", &[1 << 40]);
    let by_capacity: BTreeMap<u64, i64> = cluster
        .targets(profile("2+1"), 300)
        .into_iter()
        .map(|(disk, slots)| (cluster.disks[&disk].capacity_bytes, slots))
        .collect();
    assert_eq!(by_capacity, BTreeMap::from([(1 << 40, 200), (10 << 40, 300)]), "the large one in every row");
}

#[test]
fn a_hundred_disks_of_any_size_are_filled_within_5_percent() {
    let mut cluster = Cluster::default();
    for node in 0..20u64 {
        let capacities: Vec<u64> = (0..5).map(|disk| (1 + (node * 7 + disk * 3) % 4) << 40).collect();
        cluster.add_node(&format!("zone-{}", node % 4), &capacities);
    }
    let p = profile("4+2");
    let mut ring = cluster.build(4096, p, None);
    let check_balance = |cluster: &Cluster, ring: &Ring| {
        let total: u64 = cluster.disks.values().map(|disk| disk.capacity_bytes).sum();
        for (disk, load) in cluster.loads(ring) {
            let fair = 4096.0 * 6.0 * cluster.disks[&disk].capacity_bytes as f64 / total as f64;
            assert!((load as f64 / fair - 1.0).abs() < 0.05, "{load} slots where {fair} are fair");
        }
    };
    check_balance(&cluster, &ring);
    // Growing one disk and one node at a time keeps it so.
    for step in 0..4 {
        let node = *cluster.nodes.keys().nth(step * 3).unwrap();
        cluster.add_disk(node, 2 << 40);
        cluster.add_node(&format!("zone-{step}"), &[2 << 40, 4 << 40]);
        ring = cluster.settle(p, &ring).0;
        cluster.check_rows(p, &ring);
        check_balance(&cluster, &ring);
    }
}

#[test]
fn growing_moves_little_more_than_it_must() {
    let check = |text: &str, nodes: usize, disks_per_node: usize| {
        let p = profile(text);
        let mut cluster = Cluster::uniform(nodes, disks_per_node);
        let ring = cluster.build(4096, p, None);
        cluster.add_node("default", &vec![1 << 40; disks_per_node]);
        let (settled, moves) = cluster.settle(p, &ring);
        cluster.check_rows(p, &settled);
        let bound = ring.rows.len() * cluster.topology().row_width(p) / (nodes + 1);
        assert!(moves * 4 <= bound * 5, "{text} on {nodes} nodes: {moves} moves, {bound} are needed");
        assert!(moves * 100 >= bound * 95, "{text} on {nodes} nodes: only {moves} moves of {bound}");
    };
    check("4+2", 4, 2);
    check("4+2", 4, 4);
    check("4+2", 6, 4);
    check("2+1", 3, 2);
    check("2+2", 4, 3);
    check("3+2", 5, 1);
    check("4+2", 12, 8);
    check("8+4", 24, 4);
}

#[test]
fn a_lost_disk_is_rebuilt_from_all_others() {
    let cluster = Cluster::uniform(20, 5);
    let ring = cluster.build(4096, profile("4+2"), None);
    let lost = *cluster.disks.keys().next().unwrap();
    let with_lost = ring.rows.iter().filter(|row| row.contains(&lost));
    let partners: BTreeSet<&DiskId> = with_lost.flatten().collect();
    assert_eq!(partners.len(), 96, "every disk of the 19 other nodes shares a row with it, and itself");
}

#[test]
fn a_settled_ring_stays() {
    let cluster = Cluster::uniform(7, 3);
    let ring = cluster.build(1024, profile("4+2"), None);
    assert_eq!(cluster.build(1024, profile("4+2"), Some(&ring)), ring);
}

#[test]
fn disks_that_left_are_replaced_at_once() {
    let mut cluster = Cluster::uniform(7, 2);
    let p = profile("4+2");
    let ring = cluster.build(256, p, None);
    let gone: Vec<DiskId> = cluster.disks.keys().copied().take(2).collect();
    cluster.disks.retain(|disk, _| !gone.contains(disk));
    let next = cluster.build(256, p, Some(&ring));
    assert!(next.rows.iter().flatten().all(|disk| !gone.contains(disk)));
    let (settled, _) = cluster.settle(p, &next);
    cluster.check_rows(p, &settled);
}

#[test]
fn a_zone_that_would_hold_too_much_does_not_pull_shards_onto_one_node() {
    // By zones alone the only node of `a` would take three of 4+2, more than may be lost.
    let mut cluster = Cluster::default();
    cluster.add_node("a", &[1 << 40; 8]);
    (0..5).for_each(|_| cluster.add_node("b", &[1 << 40; 2]));
    assert_eq!(cluster.topology().caps(profile("4+2")), Caps { zone: 5, node: 1 });
    let mut even = Cluster::default();
    ["a", "b", "c"].iter().for_each(|zone| even.add_node(zone, &[1 << 40; 4]));
    assert_eq!(even.topology().caps(profile("4+2")), Caps { zone: 2, node: 2 });
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    let node = (0..3usize, prop::collection::vec(1u64..20, 1..4));
    prop::collection::vec(node, 1..9).prop_map(|nodes| {
        let mut cluster = Cluster::default();
        nodes.iter().for_each(|(zone, capacities)| cluster.add_node(&format!("zone-{zone}"), capacities));
        cluster
    })
}

fn any_profile() -> impl Strategy<Value = Profile> {
    prop::sample::select(vec!["1+0", "1+1", "2+1", "2+2", "3+2", "4+2", "8+4"]).prop_map(profile)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_first_ring_is_sound_and_exact(cluster in any_cluster(), p in any_profile()) {
        let ring = cluster.build(128, p, None);
        cluster.check_rows(p, &ring);
        prop_assert_eq!(cluster.loads(&ring), cluster.targets(p, 128));
    }

    #[test]
    fn any_growth_settles_soundly(
        cluster in any_cluster(),
        p in any_profile(),
        grown in prop::collection::vec((0..4usize, prop::collection::vec(1u64..20, 1..4)), 1..4),
    ) {
        // Rows that are narrower because disks are few grow with the cluster; the builder's steps are about full ones.
        prop_assume!(cluster.disks.len() >= p.width());
        let mut cluster = cluster;
        let mut ring = cluster.build(128, p, None);
        for (zone, capacities) in grown {
            cluster.add_node(&format!("zone-{zone}"), &capacities);
            ring = cluster.settle(p, &ring).0;
            cluster.check_rows(p, &ring);
            let targets = cluster.targets(p, 128);
            let off: i64 = cluster.loads(&ring).iter().map(|(disk, load)| (load - targets[disk]).abs()).sum();
            prop_assert!(off * 20 <= 128 * p.width() as i64 * 2, "{} of {} slots are off", off / 2, 128 * p.width());
        }
    }
}
