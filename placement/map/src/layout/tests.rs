use placement_types::ChunkId;
use proptest::prelude::*;

use super::*;
use crate::plan::Plan;
use crate::state::tests::formed;

fn disks_of(map: &ClusterMap, node: usize) -> Vec<DiskId> {
    let node = *map.nodes.keys().nth(node).unwrap();
    map.disks.values().filter(|disk| disk.node == node).map(|disk| disk.id).collect()
}

fn applied(map: &ClusterMap, layout: LayoutChange) -> ClusterMap {
    let after = change(map, &layout).unwrap().expect("something changes");
    after.check().unwrap();
    assert_eq!(after.layout, map.layout + 1);
    after
}

#[test]
fn a_drained_disk_is_on_no_row_and_everything_else_stays() {
    let before = formed(5, 2, "2+2");
    let drained = disks_of(&before, 2)[0];
    let after = applied(&before, LayoutChange::Drain { disks: vec![drained] });
    assert!(after.ring.rows.iter().flatten().all(|disk| *disk != drained));
    let had = before.ring.rows.iter().flatten().filter(|disk| **disk == drained).count();
    assert_eq!(Plan::between(&before, &after, 0).slots_moved, had, "only what was on it moves");
    assert!(!after.takes_shards(drained) && after.serves_shards(drained) && !after.is_home(drained));
    let kept = applied(&after, LayoutChange::Keep { disks: vec![drained] });
    assert!(kept.takes_shards(drained));
}

#[test]
fn draining_below_the_profile_is_refused() {
    let check = |nodes: u128, per_node: u128, profile: &str, drained: &[usize], allowed: bool| {
        let map = formed(nodes, per_node, profile);
        let disks = drained.iter().flat_map(|node| disks_of(&map, *node)).collect();
        let verdict = change(&map, &LayoutChange::Drain { disks });
        assert_eq!(verdict.is_ok(), allowed, "{profile} on {nodes} nodes without {drained:?}: {verdict:?}");
    };
    check(4, 1, "2+2", &[0], false);
    check(5, 1, "2+2", &[0], true);
    check(5, 1, "2+2", &[0, 1], false);
    check(3, 2, "2+1", &[0], false);
    check(4, 2, "2+1", &[0], true);
    check(1, 1, "1+0", &[0], false);
}

#[test]
fn a_node_alone_takes_others_in_and_then_gets_their_profile() {
    let mut alone = formed(4, 1, "2+2");
    alone.profile = "1+0".parse().unwrap();
    let joining: Vec<DiskId> = (1..4).flat_map(|node| disks_of(&alone, node)).collect();
    joining.iter().for_each(|disk| alone.disks.get_mut(disk).unwrap().role = DiskRole::Joining);
    step_ring(&mut alone);
    let profile = "2+2".parse().unwrap();
    assert!(change(&alone, &LayoutChange::SetProfile { profile }).is_err(), "one disk cannot bear it");
    let several = applied(&alone, LayoutChange::TakeIn { disks: joining });
    let suited = settled(&applied(&several, LayoutChange::SetProfile { profile }));
    assert!(suited.ring.rows.iter().all(|row| row.len() == 4));
}

#[test]
fn a_disk_that_failed_may_be_removed_without_draining() {
    let mut map = formed(5, 1, "2+2");
    let disk = disks_of(&map, 1)[0];
    let remove = LayoutChange::RemoveDisks { disks: vec![disk] };
    assert!(change(&map, &remove).is_err());
    map.disks.get_mut(&disk).unwrap().state = DiskState::Dead;
    assert!(applied(&map, remove.clone()).removed_disks.contains(&disk));
    map.disks.get_mut(&disk).unwrap().state = DiskState::Good;
    let node = map.disks[&disk].node;
    map.nodes.get_mut(&node).unwrap().state = NodeState::Lost;
    assert!(applied(&map, remove).removed_disks.contains(&disk));
}

#[test]
fn what_is_already_so_changes_nothing() {
    let map = formed(3, 1, "2+1");
    let disks = disks_of(&map, 0);
    for layout in [
        LayoutChange::TakeIn { disks: disks.clone() },
        LayoutChange::Keep { disks: disks.clone() },
        LayoutChange::Weigh { disk: disks[0], weight_bytes: None },
        LayoutChange::SetProfile { profile: map.profile },
    ] {
        assert_eq!(change(&map, &layout), Ok(None), "{layout:?}");
    }
}

proptest! {
    /// Draining nodes one after another, as long as it is allowed: homes are always on disks in use, none twice, and no
    /// node holds more of a chunk than may be lost.
    #[test]
    fn homes_keep_the_promise_through_any_drains(order in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle(), seed: u128) {
        let mut map = formed(7, 2, "2+2");
        for node in order {
            let Ok(Some(next)) = change(&map, &LayoutChange::Drain { disks: disks_of(&map, node) }) else { break };
            map = settled(&next);
            for number in 0..50u128 {
                let chunk = ChunkId::from_u128(seed.wrapping_add(number << 96));
                let homes: Vec<DiskId> = map.plan_home(chunk, map.profile).into_iter().flatten().collect();
                prop_assert_eq!(homes.len(), 4);
                let mut per_node: BTreeMap<NodeId, usize> = BTreeMap::new();
                for disk in &homes {
                    prop_assert!(map.is_home(*disk));
                    *per_node.entry(map.disks[disk].node).or_default() += 1;
                }
                prop_assert!(per_node.values().all(|shards| *shards <= map.profile.parity()));
            }
        }
        prop_assert!(disks_in_use(&map).len() >= 2);
    }
}
