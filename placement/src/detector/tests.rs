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
    let at = Duration::from_secs(seconds);
    Beat { at, boot: BOOT, heard: 1, rhythm: Rhythm::default(), full: Vec::new(), dead: BTreeMap::new() }
}

const BOOT: Boot = Boot { number: 1, nonce: 1 };
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

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn heartbeat(node: NodeId, boot: Boot) -> Heartbeat {
    Heartbeat { node, boot, full: Vec::new(), dead: Vec::new() }
}

/// A leader that looks every half second from 0 to `until` milliseconds, but for `pauses`. Nodes 1 and 2 are heard whenever
/// it runs, node 3 at `arrivals`. Returns when node 3 went down, and that nobody else did.
fn downs_of_node_3(arrivals: &[u64], pauses: &[std::ops::Range<u64>], until: u64) -> Vec<u64> {
    let (mut heard, mut map, mut downs) = (Heard::new(Term(1), Duration::ZERO), map(), Vec::new());
    let runs = |now: u64| !pauses.iter().any(|pause| pause.contains(&now));
    // What arrives in a pause is heard when it is over.
    let when = |at: u64| pauses.iter().find(|pause| pause.contains(&at)).map_or(at, |pause| pause.end);
    let mut arrivals: Vec<u64> = arrivals.iter().map(|at| when(*at)).collect();
    arrivals.sort_unstable();
    for now in (0..until).step_by(10).filter(|now| runs(*now)) {
        for _ in arrivals.extract_if(.., |arrival| *arrival <= now) {
            heard.hear(heartbeat(NODE[3], BOOT), at(now));
        }
        if now % 500 == 0 || pauses.iter().any(|pause| pause.end == now) {
            heard.hear(heartbeat(NODE[1], BOOT), at(now));
            heard.hear(heartbeat(NODE[2], BOOT), at(now));
            heard.look(at(now));
            for change in heard.decide(&map, at(now)) {
                let SystemChange::SetNodeState { node, state } = change else { panic!("{change:?}") };
                assert_eq!(node, NODE[3], "at {now}");
                map.nodes.get_mut(&node).unwrap().state = state;
                if state == NodeState::Down {
                    downs.push(now);
                }
            }
            heard.waited(at(now));
        }
    }
    downs
}

/// Heartbeats every `gap` milliseconds from `from` up to `until`.
fn every(gap: u64, from: u64, until: u64) -> Vec<u64> {
    (from..until).step_by(gap as usize).collect()
}

#[test]
fn patience_follows_what_was_heard() {
    let quiet = every(700, 0, 60_000);
    assert_eq!(downs_of_node_3(&quiet, &[], 90_000), [63_500], "the last one came at 59.5 s");
    // 50 to 200 ms of latency, and one in ten comes 2 s late.
    let jittered: Vec<u64> = (0..100u64).map(|n| n * 700 + 50 + n * 37 % 150 + if n % 10 == 3 { 2000 } else { 0 }).collect();
    assert_eq!(downs_of_node_3(&jittered, &[], 70_000), [0u64; 0]);
    // A starved machine: bursts of gaps up to 8 s. At the first it is taken down, at none after it.
    let mut starved = every(700, 0, 10_000);
    starved.extend([16_000, 21_000, 28_500, 30_000, 38_000, 45_000, 53_000, 60_000, 66_000]);
    let silent_from = 66_000;
    let downs = downs_of_node_3(&starved, &[], 120_000);
    assert_eq!(downs.len(), 2, "{downs:?}");
    assert!(downs[0] < 16_000 && (silent_from + 12_000..=silent_from + 20_000).contains(&downs[1]), "{downs:?}");
    // Afterwards it is forgotten.
    starved.extend(every(700, 66_700, 300_000));
    assert_eq!(downs_of_node_3(&starved, &[], 320_000)[1..], [304_000], "the last one came at 299.8 s");
}

#[test]
fn what_the_observer_slept_is_nobodys_silence() {
    let regular = every(700, 0, 200_000);
    // Paused for ever longer, up to a minute; and starved so that it runs only a moment every two seconds.
    let pauses = [20_010..21_500, 30_010..33_000, 50_010..110_000];
    assert_eq!(downs_of_node_3(&regular, &pauses, 200_000), [0u64; 0]);
    let starved: Vec<_> = (10..90u64).map(|n| n * 2000 + 10..n * 2000 + 1990).collect();
    assert_eq!(downs_of_node_3(&regular, &starved, 200_000), [0u64; 0]);
    // Nothing was learned from it: a death is found as quickly as before.
    assert_eq!(downs_of_node_3(&every(700, 0, 150_000), &pauses, 200_000), [154_000]);
}

#[test]
fn a_restart_is_a_new_rhythm_and_another_runs_silence() {
    let mut heard = Heard::new(Term(1), at(0));
    heard.hear(heartbeat(NODE[1], BOOT), at(1_000));
    heard.look(at(1_000));
    assert_eq!(heard.silence(NODE[1], BOOT, at(1_500)), at(500));
    let next = Boot { number: 2, nonce: 9 };
    assert_eq!(heard.silence(NODE[1], next, at(1_500)), at(1_500), "no longer than it was listened");
    assert_eq!(heard.silence(NODE[1], BOOT, at(61_000)), at(0), "the observer was paused, and has not looked since");
    (2..200).for_each(|half| _ = heard.look(at(half * 500)));
    heard.hear(heartbeat(NODE[1], next), at(99_500));
    assert_eq!(heard.beats[&NODE[1]].rhythm.patience(), DOWN_AFTER);
    heard.hear(heartbeat(NODE[1], next), at(106_000));
    assert_eq!(heard.beats[&NODE[1]].rhythm.patience(), DOWN_AFTER, "the observer did not run itself");
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
        let reported = Beat { full: full.to_vec(), dead, ..beat(9) };
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
    let reported = Beat { dead: BTreeMap::from([(DISK_1, Duration::ZERO)]), ..beat(9) };
    let beats = BTreeMap::from([(NODE[1], beat(9)), (NODE[2], reported), (NODE[3], beat(9))]);
    assert_eq!(decide(&map(), &beats, Duration::ZERO, Duration::from_secs(9)), []);
}
