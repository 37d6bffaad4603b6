//! Who is down, decided from what was heard: a pure function of the map, the heartbeats and the time.
//!
//! A node is down when it was silent for [`DOWN_AFTER`], counted from its last heartbeat or from when the observer began to
//! listen, whichever is later: a new leader has heard nobody yet and must not take the cluster down. After as much as the
//! cluster's settings say it is given up as lost, counted the same way: a change of leader makes everybody wait anew, and no
//! step of a wall clock makes anybody wait less (C7). One heartbeat brings a node up again, also a lost one.
//!
//! Disks are what the node's last heartbeat says, and lost when it has said "dead" for as long; those of a silent node stay
//! as they are, being out of use with their node anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use placement_map::apply::{DiskReport, disk_changes};
use placement_map::system::SystemChange;
use placement_map::{ClusterMap, NodeState};
use placement_types::{DiskId, NodeId};

use crate::limits::DOWN_AFTER;

/// The last heartbeat of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// On the observer's monotonic clock.
    pub at: Duration,
    pub full: Vec<DiskId>,
    /// Since when each dead disk was reported so without interruption, on the same clock.
    pub dead: BTreeMap<DiskId, Duration>,
}

/// The changes of the map that what was heard calls for, nodes before disks. `listening_since` and `now` are on the clock of
/// the heartbeats.
pub fn decide(map: &ClusterMap, beats: &BTreeMap<NodeId, Beat>, listening_since: Duration, now: Duration) -> Vec<SystemChange> {
    let (mut nodes, mut disks) = (Vec::new(), Vec::new());
    for node in map.nodes.values() {
        let heard = beats.get(&node.id).filter(|beat| now.saturating_sub(beat.at) < DOWN_AFTER);
        match heard {
            Some(beat) => {
                if node.state != NodeState::Up {
                    nodes.push(SystemChange::SetNodeState { node: node.id, state: NodeState::Up });
                }
                disks.extend(disks_of(map, node.id, beat, now));
            }
            None => {
                let last = beats.get(&node.id).map_or(listening_since, |beat| beat.at.max(listening_since));
                let silence = now.saturating_sub(last);
                let state = match node.state {
                    NodeState::Up if silence >= DOWN_AFTER => NodeState::Down,
                    NodeState::Down if silence >= map.settings.rebuild_after.max(DOWN_AFTER) => NodeState::Lost,
                    NodeState::Up | NodeState::Down | NodeState::Lost => continue,
                };
                nodes.push(SystemChange::SetNodeState { node: node.id, state });
            }
        }
    }
    nodes.append(&mut disks);
    nodes
}

fn disks_of(map: &ClusterMap, node: NodeId, beat: &Beat, now: Duration) -> Vec<SystemChange> {
    let dead: Vec<DiskId> = beat.dead.keys().copied().collect();
    let given_up = |since: &Duration| now.saturating_sub(*since) >= map.settings.rebuild_after;
    let lost: Vec<DiskId> = beat.dead.iter().filter(|(_, since)| given_up(since)).map(|(disk, _)| *disk).collect();
    disk_changes(map, node, DiskReport { full: &beat.full, dead: &dead, lost: &lost })
}

#[cfg(test)]
mod tests {
    use placement_map::DiskState;
    use placement_map::state::SystemState;
    use placement_map::system::{NewDisk, NewNode, SystemCommand};
    use placement_types::{ClusterId, Timestamp, TxnId, ZoneName};

    use super::*;

    fn map() -> ClusterMap {
        let node = |number: u128| NewNode {
            node: NodeId::from_u128(number),
            address: format!("node-{number}:9100"),
            zone: ZoneName::default(),
            disks: vec![NewDisk { disk: DiskId::from_u128(number * 10), capacity_bytes: 1 << 40 }],
        };
        let change = SystemChange::Form {
            cluster: ClusterId::from_u128(1),
            nodes: (1..=3).map(node).collect(),
            profile: None,
            partitions: 16,
            groups: 1,
        };
        let mut state = SystemState::default();
        state.apply(&SystemCommand { txn: TxnId::from_u128(1), time: Timestamp::default(), change });
        state.map.unwrap()
    }

    fn beat(seconds: u64) -> Beat {
        Beat { at: Duration::from_secs(seconds), full: Vec::new(), dead: BTreeMap::new() }
    }

    const DISK_1: DiskId = DiskId::from_u128(10);
    const NODE: [NodeId; 4] = [NodeId::from_u128(0), NodeId::from_u128(1), NodeId::from_u128(2), NodeId::from_u128(3)];

    #[test]
    fn a_silent_node_goes_down_and_one_heartbeat_brings_it_back() {
        let mut map = map();
        let beats = BTreeMap::from([(NODE[1], beat(100)), (NODE[2], beat(97)), (NODE[3], beat(96))]);
        let decided = decide(&map, &beats, Duration::ZERO, Duration::from_secs(100));
        assert_eq!(decided, [SystemChange::SetNodeState { node: NODE[3], state: NodeState::Down }]);
        map.nodes.get_mut(&NODE[3]).unwrap().state = NodeState::Down;
        assert_eq!(decide(&map, &beats, Duration::ZERO, Duration::from_secs(100)), []);
        let beats = BTreeMap::from([(NODE[1], beat(100)), (NODE[2], beat(100)), (NODE[3], beat(100))]);
        let decided = decide(&map, &beats, Duration::ZERO, Duration::from_secs(100));
        assert_eq!(decided, [SystemChange::SetNodeState { node: NODE[3], state: NodeState::Up }]);
    }

    #[test]
    fn a_new_leader_takes_nobody_down_before_it_has_listened() {
        let beats = BTreeMap::from([(NODE[1], beat(50))]);
        let check = |now: u64, down: usize| {
            assert_eq!(decide(&map(), &beats, Duration::from_secs(100), Duration::from_secs(now)).len(), down, "at {now}");
        };
        check(100, 0);
        check(103, 0);
        check(104, 3);
    }

    #[test]
    fn disks_follow_their_nodes_reports() {
        let mut map = map();
        let all = |first: Beat| BTreeMap::from([(NODE[1], first), (NODE[2], beat(9)), (NODE[3], beat(9))]);
        let mut check = |full: &[DiskId], dead: &[DiskId], expected: DiskState| {
            let dead = dead.iter().map(|disk| (*disk, Duration::from_secs(8))).collect();
            let reported = Beat { at: Duration::from_secs(9), full: full.to_vec(), dead };
            let decided = decide(&map, &all(reported.clone()), Duration::ZERO, Duration::from_secs(9));
            assert_eq!(decided, [SystemChange::SetDiskState { disk: DISK_1, state: expected }]);
            map.disks.get_mut(&DISK_1).unwrap().state = expected;
            assert_eq!(decide(&map, &all(reported), Duration::ZERO, Duration::from_secs(9)), []);
        };
        check(&[DISK_1], &[], DiskState::ReadOnly);
        check(&[DISK_1], &[DISK_1], DiskState::Dead);
        check(&[], &[], DiskState::Good);
    }

    #[test]
    fn what_stays_away_for_long_is_given_up_and_comes_back_when_heard() {
        let mut map = map();
        map.settings.rebuild_after = Duration::from_secs(60);
        map.nodes.get_mut(&NODE[3]).unwrap().state = NodeState::Down;
        let lost = SystemChange::SetNodeState { node: NODE[3], state: NodeState::Lost };
        let check = |map: &ClusterMap, listening_since: u64, now: u64, expected: &[SystemChange]| {
            let beats = BTreeMap::from([(NODE[1], beat(now)), (NODE[2], beat(now)), (NODE[3], beat(10))]);
            let (since, now) = (Duration::from_secs(listening_since), Duration::from_secs(now));
            assert_eq!(decide(map, &beats, since, now), expected, "listening since {since:?}, at {now:?}");
        };
        check(&map, 0, 69, &[]);
        check(&map, 0, 70, std::slice::from_ref(&lost));
        check(&map, 30, 89, &[]);
        check(&map, 30, 90, &[lost]);
        map.nodes.get_mut(&NODE[3]).unwrap().state = NodeState::Lost;
        check(&map, 0, 100, &[]);
        check(&map, 0, 13, &[SystemChange::SetNodeState { node: NODE[3], state: NodeState::Up }]);

        map.nodes.get_mut(&NODE[3]).unwrap().state = NodeState::Up;
        map.disks.get_mut(&DISK_1).unwrap().state = DiskState::Dead;
        let disk = |dead_since: u64, now: u64| {
            let dead = BTreeMap::from([(DISK_1, Duration::from_secs(dead_since))]);
            let reported = Beat { dead, ..beat(now) };
            let beats = BTreeMap::from([(NODE[1], reported), (NODE[2], beat(now)), (NODE[3], beat(now))]);
            decide(&map, &beats, Duration::ZERO, Duration::from_secs(now))
        };
        assert_eq!(disk(10, 69), []);
        assert_eq!(disk(10, 70), [SystemChange::SetDiskState { disk: DISK_1, state: DiskState::Lost }]);
    }

    #[test]
    fn a_report_about_another_nodes_disk_is_ignored() {
        let reported = Beat { at: Duration::from_secs(9), full: vec![], dead: BTreeMap::from([(DISK_1, Duration::ZERO)]) };
        let beats = BTreeMap::from([(NODE[1], beat(9)), (NODE[2], reported), (NODE[3], beat(9))]);
        assert_eq!(decide(&map(), &beats, Duration::ZERO, Duration::from_secs(9)), []);
    }
}
