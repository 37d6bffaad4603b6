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
        let heard = before.map_or(0, |before| before.heard) + 1;
        self.beats.insert(beat.node, Beat { at: now, boot: beat.boot, heard, rhythm, full: beat.full, dead });
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

    /// How often a run of a node was heard.
    pub fn times(&self, node: NodeId, boot: Boot) -> u64 {
        self.beats.get(&node).filter(|beat| beat.boot == boot).map_or(0, |beat| beat.heard)
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
    /// How often this run of the node was heard, this time included.
    pub heard: u64,
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
mod tests;
