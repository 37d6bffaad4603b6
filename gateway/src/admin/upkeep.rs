//! `/admin/v1/risk`, and what status says of repair, re-coding and rebalance: the surveys of all groups put together.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use placement_map::ClusterMap;
use placement_types::{DiskId, GroupId, NodeId, Profile, Timestamp, ZoneName};
use serde_json::{Value, json};
use storage_node_proto::upkeep::{GroupSurvey, Tally, UpkeepReport, Work};

use crate::gateway::Gateway;
use crate::limits::READY_DEADLINE;

/// The newest survey of each group, from whichever node made it.
#[derive(Default)]
pub struct Upkeep {
    surveys: BTreeMap<GroupId, GroupSurvey>,
    bytes_last_minute: u64,
    /// When each node's newest copy of the system group's state was taken.
    system_copied: BTreeMap<NodeId, Timestamp>,
}

/// Asks every node; those that do not answer are left out.
pub async fn gather(gw: &Gateway, map: &ClusterMap) -> Upkeep {
    let reports: Vec<Option<(NodeId, UpkeepReport)>> = stream::iter(map.nodes.keys().copied().collect::<Vec<_>>())
        .map(|node| async move {
            let api = gw.nodes.node(node)?;
            Some((node, gw.env.timeout(READY_DEADLINE, api.upkeep()).await.ok()?.ok()?))
        })
        .buffer_unordered(32)
        .collect()
        .await;
    let mut upkeep = Upkeep::default();
    for (node, report) in reports.into_iter().flatten() {
        upkeep.system_copied.extend(report.system_copied.map(|taken| (node, taken)));
        upkeep.bytes_last_minute += report.bytes_last_minute;
        for survey in report.surveys {
            // A leader that was deposed a moment ago still has its own.
            if upkeep.surveys.get(&survey.group).is_none_or(|known| known.at < survey.at) {
                upkeep.surveys.insert(survey.group, survey);
            }
        }
    }
    upkeep
}

impl Upkeep {
    /// How old a node's newest copy of the system group's state is; `None` when it has none, or does not answer.
    pub fn system_copy_age(&self, node: NodeId, now: Timestamp) -> Option<Duration> {
        self.system_copied.get(&node).map(|taken| now.since(*taken))
    }

    /// How fast repair, rebalance and re-coding write now; `None` when they do not.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.bytes_last_minute / 60).filter(|rate| *rate > 0)
    }

    fn work(&self, of: fn(&GroupSurvey) -> Work) -> Work {
        self.surveys.values().fold(Work::default(), |mut sum, survey| {
            sum.add(of(survey));
            sum
        })
    }

    fn tally(&self, of: fn(&GroupSurvey) -> Tally) -> Tally {
        self.surveys.values().fold(Tally::default(), |mut sum, survey| {
            sum.add(of(survey));
            sum
        })
    }

    /// How much data is coded how.
    fn profiles(&self) -> BTreeMap<Profile, Tally> {
        let mut profiles: BTreeMap<Profile, Tally> = BTreeMap::new();
        for (profile, coded) in self.surveys.values().flat_map(|survey| &survey.profiles) {
            profiles.entry(*profile).or_default().add(*coded);
        }
        profiles
    }

    /// What would be coded anew if new chunks had this profile, and about how many bytes of shards that would write.
    pub fn recoded_to(&self, wanted: Profile) -> (Tally, u64) {
        let mut recoded = Tally::default();
        self.profiles().into_iter().filter(|(profile, _)| *profile != wanted).for_each(|(_, coded)| recoded.add(coded));
        let shards = u128::from(recoded.bytes) * wanted.width() as u128 / wanted.data() as u128;
        (recoded, u64::try_from(shards).unwrap_or(u64::MAX))
    }

    /// Groups of which nobody has found out yet how they are by this map.
    pub fn unsurveyed(&self, map: &ClusterMap) -> Vec<u32> {
        let is_known = |group: &GroupId| self.surveys.get(group).is_some_and(|survey| survey.epoch >= map.epoch);
        map.metadata_groups().filter(|group| !is_known(group)).map(|group| group.0).collect()
    }

    /// Whether no manifest names a draining disk any more, as far as surveys by this map say: what such disks still hold is garbage,
    /// kept for readers that are under way.
    pub fn is_drained(&self, map: &ClusterMap) -> bool {
        self.unsurveyed(map).is_empty() && self.work(|survey| survey.leaving).shards == 0
    }

    /// What there is to repair, to code anew and to move, how fast that goes, and how long it may take.
    pub fn progress(&self, map: &ClusterMap) -> Value {
        let [lost, leaving, outdated, misplaced] = [
            self.work(|survey| survey.lost),
            self.work(|survey| survey.leaving),
            self.work(|survey| survey.outdated),
            self.work(|survey| survey.misplaced),
        ];
        let left = (lost.bytes + leaving.bytes + outdated.bytes + misplaced.bytes) as f64;
        let profiles = self.profiles();
        let profiles: Vec<Value> = profiles
            .into_iter()
            .map(|(profile, coded)| json!({ "profile": profile.to_string(), "data": tally(coded) }))
            .collect();
        let rate = self.bytes_per_second();
        let seconds = rate.map(|rate| (left / rate as f64).ceil() as u64);
        json!({
            "lost": work(lost),
            "leaving": work(leaving),
            "outdated": work(outdated),
            "misplaced": work(misplaced),
            "profiles": profiles,
            "bytes_per_second": rate.unwrap_or(0),
            "seconds_left": if left == 0.0 { Some(0) } else { seconds },
            "groups_not_surveyed": self.unsurveyed(map),
        })
    }
}

/// What would be lost or unreadable if one more of anything failed now.
pub async fn risk(gw: &Gateway) -> Value {
    let Some(map) = gw.maps.borrow().clone() else {
        return json!({ "formed": false });
    };
    let upkeep = gather(gw, &map).await;
    let mut margins: Vec<Tally> = Vec::new();
    let (mut disks, mut nodes, mut zones) =
        (BTreeMap::<DiskId, Tally>::new(), BTreeMap::<NodeId, Tally>::new(), BTreeMap::<ZoneName, Tally>::new());
    for survey in upkeep.surveys.values() {
        margins.resize(margins.len().max(survey.margins.len()), Tally::default());
        for (sum, more) in margins.iter_mut().zip(&survey.margins) {
            sum.add(*more);
        }
        survey.without_disk.iter().for_each(|(disk, hanging)| disks.entry(*disk).or_default().add(*hanging));
        survey.without_node.iter().for_each(|(node, hanging)| nodes.entry(*node).or_default().add(*hanging));
        survey.without_zone.iter().for_each(|(zone, hanging)| zones.entry(zone.clone()).or_default().add(*hanging));
    }
    let margins: Vec<Value> = margins
        .into_iter()
        .enumerate()
        .map(|(margin, covered)| json!({ "shards_may_be_lost": margin, "data": tally(covered) }))
        .collect();
    json!({
        "formed": true,
        "surveyed": tally(upkeep.tally(|survey| survey.all)),
        "gone": tally(upkeep.tally(|survey| survey.gone)),
        "unreadable_now": tally(upkeep.tally(|survey| survey.unreadable)),
        "margins": margins,
        "without_disk": disks.into_iter().map(|(disk, hanging)| hangs_on(&disk.to_string(), hanging)).collect::<Vec<_>>(),
        "without_node": nodes.into_iter().map(|(node, hanging)| hangs_on(&node.to_string(), hanging)).collect::<Vec<_>>(),
        "without_zone": zones.into_iter().map(|(zone, hanging)| hangs_on(zone.as_str(), hanging)).collect::<Vec<_>>(),
        "upkeep": upkeep.progress(&map),
    })
}

pub(super) fn tally(tally: Tally) -> Value {
    json!({ "keys": tally.keys, "chunks": tally.chunks, "bytes": tally.bytes })
}

fn work(work: Work) -> Value {
    json!({ "shards": work.shards, "bytes": work.bytes, "stuck": work.stuck })
}

fn hangs_on(id: &str, hanging: Tally) -> Value {
    json!({ "id": id, "data": tally(hanging) })
}
