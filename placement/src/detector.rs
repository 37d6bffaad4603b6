//! Who is down, decided from what was heard: a pure function of the map, the heartbeats and the time.
//!
//! A node is down when it was silent for [`DOWN_AFTER`], counted from its last heartbeat or from when the observer began to
//! listen, whichever is later: a new leader has heard nobody yet and must not take the cluster down. After as much as the
//! cluster's settings say it is given up as lost, counted the same way: a change of leader makes everybody wait anew, and no
//! step of a wall clock makes anybody wait less (C7). One heartbeat brings a node up again, also a lost one.
//!
//! A node on a starved machine is heard at long intervals; taking it down and up again with each would cost more than waiting
//! does. So how long a silence is borne is learned of each node ([`Rhythm`]): twice the longest gap lately, 4 to 20 s. The
//! longest, and not mean and deviation as in Jacobson's estimate or phi accrual: gaps of a starved process come in bursts, and
//! a mean over heartbeats that come 0.7 s apart has forgotten a gap of 5 s after three of them.
//!
//! The observer may be starved itself ([`Heard`]): the time it did not run is nobody's silence, and nothing is learned from it
//! (C3).
//!
//! Disks are what the node's last heartbeat says, and lost when it has said "dead" for as long; those of a silent node stay
//! as they are, being out of use with their node anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use placement_map::apply::{DiskReport, disk_changes};
use placement_map::system::SystemChange;
use placement_map::{ClusterMap, NodeState};
use placement_proto::api::Heartbeat;
use placement_types::{Boot, DiskId, NodeId, Term};

use crate::limits::{DETECT_INTERVAL, DOWN_AFTER, DOWN_AFTER_MAX, GAP_FADES, GAPS_TO_DOWN, LOOK_TOLERANCE, PAUSE_SUSPECTED};

/// How regularly a node is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rhythm {
    /// The longest gap between two of its heartbeats, fading.
    longest: Duration,
}

impl Rhythm {
    /// The rhythm after a further gap.
    #[must_use]
    pub fn after(self, gap: Duration) -> Self {
        let faded = self.longest - self.longest / GAP_FADES;
        Self { longest: faded.max(gap.min(DOWN_AFTER_MAX)) }
    }

    /// Silence after which the node counts as down.
    pub fn patience(self) -> Duration {
        (self.longest * GAPS_TO_DOWN).clamp(DOWN_AFTER, DOWN_AFTER_MAX)
    }
}

/// What one leadership has heard, on its own monotonic clock.
#[derive(Debug)]
pub struct Heard {
    pub term: Term,
    /// Since when it listens without interruption.
    since: Duration,
    /// When it last looked: from then on it is known to have run.
    looked_at: Duration,
    beats: BTreeMap<NodeId, Beat>,
}

impl Heard {
    pub fn new(term: Term, now: Duration) -> Self {
        Self { term, since: now, looked_at: now, beats: BTreeMap::new() }
    }

    pub fn hear(&mut self, beat: Heartbeat, now: Duration) {
        let before = self.beats.get(&beat.node).filter(|before| before.boot == beat.boot);
        let since = |disk: &DiskId| before.and_then(|before| before.dead.get(disk)).copied().unwrap_or(now);
        let rhythm = match before {
            Some(before) if self.late(now).is_zero() => before.rhythm.after(now.saturating_sub(before.at)),
            Some(before) => before.rhythm,
            None => Rhythm::default(),
        };
        let dead = beat.dead.iter().map(|disk| (*disk, since(disk))).collect();
        self.beats.insert(beat.node, Beat { at: now, boot: beat.boot, rhythm, full: beat.full, dead });
    }

    /// To be called every [`DETECT_INTERVAL`]: what a call is late, this process did not run. Returns whether it was paused for
    /// so long that everybody gets a new grace.
    pub fn look(&mut self, now: Duration) -> bool {
        let late = self.late(now);
        let paused = now.saturating_sub(self.looked_at) >= PAUSE_SUSPECTED;
        self.since = if paused { now } else { (self.since + late).min(now) };
        for beat in self.beats.values_mut() {
            beat.at = (beat.at + late).min(now);
        }
        self.looked_at = now;
        paused
    }

    /// Waiting for an answer from others is no pause.
    pub fn waited(&mut self, now: Duration) {
        self.looked_at = now;
    }

    fn late(&self, now: Duration) -> Duration {
        now.saturating_sub(self.looked_at).saturating_sub(DETECT_INTERVAL + LOOK_TOLERANCE)
    }

    pub fn decide(&self, map: &ClusterMap, now: Duration) -> Vec<SystemChange> {
        decide(map, &self.beats, self.since, now)
    }

    /// For how long a run of a node was certainly not heard.
    pub fn silence(&self, node: NodeId, boot: Boot, now: Duration) -> Duration {
        if now.saturating_sub(self.looked_at) >= PAUSE_SUSPECTED {
            return Duration::ZERO;
        }
        let heard = self.beats.get(&node).filter(|beat| beat.boot == boot).map_or(Duration::ZERO, |beat| beat.at);
        now.saturating_sub(heard.max(self.since)).saturating_sub(self.late(now))
    }
}

/// The last heartbeat of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// On the observer's monotonic clock.
    pub at: Duration,
    pub boot: Boot,
    pub rhythm: Rhythm,
    pub full: Vec<DiskId>,
    /// Since when each dead disk was reported so without interruption, on the same clock.
    pub dead: BTreeMap<DiskId, Duration>,
}

/// The changes of the map that what was heard calls for, nodes before disks. `listening_since` and `now` are on the clock of
/// the heartbeats.
pub fn decide(map: &ClusterMap, beats: &BTreeMap<NodeId, Beat>, listening_since: Duration, now: Duration) -> Vec<SystemChange> {
    let (mut nodes, mut disks) = (Vec::new(), Vec::new());
    for node in map.nodes.values() {
        let beat = beats.get(&node.id);
        let patience = beat.map_or(DOWN_AFTER, |beat| beat.rhythm.patience());
        match beat.filter(|beat| now.saturating_sub(beat.at) < patience) {
            Some(beat) => {
                if node.state != NodeState::Up {
                    nodes.push(SystemChange::SetNodeState { node: node.id, state: NodeState::Up });
                }
                disks.extend(disks_of(map, node.id, beat, now));
            }
            None => {
                let last = beat.map_or(listening_since, |beat| beat.at.max(listening_since));
                let silence = now.saturating_sub(last);
                let state = match node.state {
                    NodeState::Up if silence >= patience => NodeState::Down,
                    NodeState::Down if silence >= map.settings.rebuild_after.max(patience) => NodeState::Lost,
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
        let at = Duration::from_secs(seconds);
        Beat { at, boot: BOOT, rhythm: Rhythm::default(), full: Vec::new(), dead: BTreeMap::new() }
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
}
