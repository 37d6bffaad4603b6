//! What a survey adds up over the chunks of a group.

use std::collections::BTreeMap;

use placement_map::ClusterMap;
use placement_types::{DiskId, Epoch, GroupId, NodeId, ObjectKey, Profile, Timestamp, ZoneName};
use storage_node_proto::command::{FiledChunk, Shelf};
use storage_node_proto::upkeep::{GroupSurvey, Tally, Work};

use crate::diagnosis::{Cause, Coding, Diagnosis, Step};

/// Sums of a pass.
#[derive(Default)]
pub(super) struct Totals {
    /// The record that came last: keys come in order, so a key is counted when it differs from it.
    last: Option<(Shelf, ObjectKey)>,
    pub(super) all: Tally,
    lost: Work,
    leaving: Work,
    misplaced: Work,
    outdated: Work,
    profiles: BTreeMap<Profile, Keyed>,
    unreadable: Keyed,
    gone: Keyed,
    margins: Vec<Keyed>,
    without_disk: BTreeMap<DiskId, Keyed>,
    without_node: BTreeMap<NodeId, Keyed>,
    without_zone: BTreeMap<ZoneName, Keyed>,
}

/// A tally that counts a key once, however many of its chunks are added: `all.keys` numbers the keys as they come.
#[derive(Debug, Clone, Copy, Default)]
struct Keyed {
    tally: Tally,
    last_key: u64,
}

impl Keyed {
    fn add(&mut self, key: u64, bytes: u64) {
        let keys = u64::from(self.last_key != key);
        self.last_key = key;
        self.tally.add(Tally { keys, chunks: 1, bytes });
    }
}

impl Totals {
    /// `step`: what will be done about the chunk.
    pub(super) fn count(&mut self, map: &ClusterMap, chunk: &FiledChunk, diagnosis: &Diagnosis, step: Option<Step>) {
        let entry = &chunk.entry;
        let bytes = u64::from(entry.bytes);
        let is_new = self.last.as_ref().is_none_or(|(shelf, key)| (*shelf, key) != (chunk.shelf, &chunk.key));
        if is_new {
            self.last = Some((chunk.shelf, chunk.key.clone()));
        }
        self.all.add(Tally { keys: u64::from(is_new), chunks: 1, bytes });
        let key = self.all.keys;

        let is_written_anew = matches!(step, Some(Step::Renew | Step::Recode));
        for need in &diagnosis.needs {
            let work = match need.cause {
                Cause::Lost => &mut self.lost,
                Cause::Leaving => &mut self.leaving,
                Cause::Misplaced => &mut self.misplaced,
            };
            work.add(Work { shards: 1, bytes: entry.shard_bytes(), stuck: u64::from(need.to.is_none() && !is_written_anew) });
        }
        self.profiles.entry(entry.profile).or_default().add(key, bytes);
        if diagnosis.coding != Coding::Current {
            let shards = map.profile.width() as u64;
            let stuck = if diagnosis.coding == Coding::OutdatedForNow { shards } else { 0 };
            self.outdated.add(Work { shards, bytes: shards * entry.shard_bytes_in(map.profile), stuck });
        }
        let needed = entry.profile.data();
        match diagnosis.kept.checked_sub(needed) {
            Some(margin) => {
                self.margins.resize(self.margins.len().max(margin + 1), Keyed::default());
                self.margins[margin].add(key, bytes);
            }
            None => self.gone.add(key, bytes),
        }
        if diagnosis.readable < needed {
            self.unreadable.add(key, bytes);
            return;
        }
        self.count_risks(map, chunk, diagnosis.readable - needed, key);
    }

    /// Counts the chunk for every disk, node and zone without which it could not be read.
    fn count_risks(&mut self, map: &ClusterMap, chunk: &FiledChunk, spare: usize, key: u64) {
        let bytes = u64::from(chunk.entry.bytes);
        let (mut on_node, mut in_zone) = (BTreeMap::<NodeId, usize>::new(), BTreeMap::<&ZoneName, usize>::new());
        for disk in chunk.entry.shards.iter().flatten().filter(|disk| map.serves_shards(**disk)) {
            let Some(node) = map.node_of_disk(*disk) else { continue };
            *on_node.entry(node.id).or_default() += 1;
            *in_zone.entry(&node.zone).or_default() += 1;
            if spare == 0 {
                self.without_disk.entry(*disk).or_default().add(key, bytes);
            }
        }
        for (node, _) in on_node.into_iter().filter(|(_, shards)| *shards > spare) {
            self.without_node.entry(node).or_default().add(key, bytes);
        }
        for (zone, _) in in_zone.into_iter().filter(|(_, shards)| *shards > spare) {
            self.without_zone.entry(zone.clone()).or_default().add(key, bytes);
        }
    }

    pub(super) fn into_survey(self, group: GroupId, epoch: Epoch, at: Timestamp) -> GroupSurvey {
        fn listed<K>(risks: BTreeMap<K, Keyed>) -> Vec<(K, Tally)> {
            risks.into_iter().map(|(of, keyed)| (of, keyed.tally)).collect()
        }
        GroupSurvey {
            group,
            epoch,
            at,
            all: self.all,
            lost: self.lost,
            leaving: self.leaving,
            misplaced: self.misplaced,
            outdated: self.outdated,
            profiles: listed(self.profiles),
            unreadable: self.unreadable.tally,
            gone: self.gone.tally,
            margins: self.margins.into_iter().map(|keyed| keyed.tally).collect(),
            without_disk: listed(self.without_disk),
            without_node: listed(self.without_node),
            without_zone: listed(self.without_zone),
        }
    }
}
