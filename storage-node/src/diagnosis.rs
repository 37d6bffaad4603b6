//! What a chunk lacks, judged by the cluster map: a pure function of the map and the manifest entry.
//!
//! | cause | the shard | what is done |
//! |---|---|---|
//! | [`Cause::Lost`] | is on no disk, or on one that was removed or given up | rebuilt from the others |
//! | [`Cause::Leaving`] | is on a disk that is being drained | copied, or rebuilt when the disk cannot be read |
//! | [`Cause::Misplaced`] | is on another disk than the ring says | copied |
//!
//! A chunk whose profile is not the one of new chunks is *outdated*: it is coded anew as a whole ([`crate::recode`]), once
//! enough of it can be read and the disks that are up could take every new shard; until then it waits as it is. Its misplaced
//! shards are left alone then, because nothing of them will stay.
//!
//! A shard that is lost or leaving may have nowhere to go although there are disks enough: its slot left them a moment ago
//! ([`storage_node_meta::limits::RETURN_AFTER`]), or an orphan is in its way. Such a chunk is *cornered*: it is written anew as
//! a whole, under an id that no disk has met.
//!
//! A disk that is only down or full is waited for. Where a shard goes: to the home of its slot, else to another home of the
//! chunk, else, unless it is only misplaced, to whatever disk keeps the chunk's shards apart best. Two shards never meet on a
//! disk, and no node gets more than m as long as it can be helped.

use std::collections::{BTreeMap, BTreeSet};

use placement_map::{ClusterMap, DiskRole};
use placement_types::{DiskId, NodeId};
use storage_node_proto::object::ChunkEntry;

/// Why a shard should be elsewhere, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    Lost,
    Leaving,
    Misplaced,
}

/// A shard that should be elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub index: usize,
    pub cause: Cause,
    /// What the manifest says now.
    pub from: Option<DiskId>,
    /// `None` when no disk can take it now.
    pub to: Option<DiskId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    /// How many shards there are, on disks that are read or waited for.
    pub kept: usize,
    /// How many of them can be read now.
    pub readable: usize,
    /// The most urgent first.
    pub needs: Vec<Need>,
    pub coding: Coding,
    /// A shard has nowhere to go, and under a fresh id all of them would have.
    pub cornered: bool,
}

/// How a chunk's profile compares with that of new chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Current,
    /// Another one, and it can be changed now.
    Outdated,
    /// Another one, but too few shards can be read, or too few disks are up to take the new ones.
    OutdatedForNow,
}

/// What is done about a chunk first. What keeps data from being lost comes before what makes it safer or more even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Rebuild,
    Vacate,
    /// Written anew in its profile, which gives it what it lacks.
    Renew,
    Recode,
    Move,
}

impl Diagnosis {
    /// `None` when nothing is to be done, or can be.
    pub fn step(&self) -> Option<Step> {
        let can = |cause| self.placed(cause).next().is_some();
        match self.coding {
            _ if can(Cause::Lost) => Some(Step::Rebuild),
            _ if can(Cause::Leaving) => Some(Step::Vacate),
            _ if self.cornered => Some(Step::Renew),
            Coding::Outdated => Some(Step::Recode),
            Coding::Current | Coding::OutdatedForNow if can(Cause::Misplaced) => Some(Step::Move),
            Coding::Current | Coding::OutdatedForNow => None,
        }
    }

    /// The needs of one cause that have somewhere to go.
    pub fn placed(&self, cause: Cause) -> impl Iterator<Item = &Need> {
        self.needs.iter().filter(move |need| need.cause == cause && need.to.is_some())
    }
}

/// `departed`: slots with disks that must not take them now ([`SurveyedChunk::departed`](storage_node_proto::query::SurveyedChunk)).
pub(crate) fn diagnose(map: &ClusterMap, entry: &ChunkEntry, departed: &[(u8, DiskId)]) -> Diagnosis {
    let homes = map.plan_home(entry.chunk, entry.profile);
    let kept = |disk: &DiskId| map.keeps_shards(*disk);
    let mut causes: Vec<(Cause, usize)> =
        entry.shards.iter().enumerate().filter_map(|(index, disk)| Some((cause(map, &homes, *disk)?, index))).collect();
    causes.sort_unstable();
    let readable = entry.shards.iter().flatten().filter(|disk| map.serves_shards(**disk)).count();
    let can_be_coded = || readable >= entry.profile.data() && map.can_take(map.profile);
    let coding = if entry.profile == map.profile {
        Coding::Current
    } else if can_be_coded() {
        Coding::Outdated
    } else {
        Coding::OutdatedForNow
    };
    let mut places = Places::new(map, entry, departed);
    let mut needs = Vec::with_capacity(causes.len());
    for (cause, index) in causes {
        if cause == Cause::Misplaced && coding == Coding::Outdated {
            continue;
        }
        let to = places.place(&homes, index, cause);
        // What is only misplaced may stay where it is until its home can take it.
        if to.is_some() || cause != Cause::Misplaced {
            needs.push(Need { index, cause, from: entry.shards[index], to });
        }
    }
    let cornered = coding == Coding::Current && needs.iter().any(|need| need.to.is_none()) && can_be_coded();
    Diagnosis { kept: entry.shards.iter().flatten().filter(|disk| kept(disk)).count(), readable, needs, coding, cornered }
}

fn cause(map: &ClusterMap, homes: &[Option<DiskId>], disk: Option<DiskId>) -> Option<Cause> {
    let Some(disk) = disk.filter(|disk| map.keeps_shards(*disk)) else { return Some(Cause::Lost) };
    match map.disks[&disk].role {
        DiskRole::Draining => Some(Cause::Leaving),
        DiskRole::InUse | DiskRole::Joining => (!homes.contains(&Some(disk))).then_some(Cause::Misplaced),
    }
}

/// Where a chunk's shards are, as needs are given their places.
struct Places<'a> {
    map: &'a ClusterMap,
    entry: &'a ChunkEntry,
    departed: &'a [(u8, DiskId)],
    used: BTreeSet<DiskId>,
    on_node: BTreeMap<NodeId, usize>,
}

impl<'a> Places<'a> {
    fn new(map: &'a ClusterMap, entry: &'a ChunkEntry, departed: &'a [(u8, DiskId)]) -> Self {
        let used: BTreeSet<DiskId> = entry.shards.iter().flatten().copied().collect();
        let mut places = Self { map, entry, departed, used, on_node: BTreeMap::new() };
        for disk in entry.shards.iter().flatten().filter(|disk| map.keeps_shards(**disk)) {
            *places.on_node.entry(map.disks[disk].node).or_default() += 1;
        }
        places
    }

    /// A disk for the slot, taken from then on.
    fn place(&mut self, homes: &[Option<DiskId>], index: usize, cause: Cause) -> Option<DiskId> {
        let from = self.entry.shards[index].filter(|disk| self.map.keeps_shards(*disk));
        if let Some(from) = from {
            self.count(from, -1);
        }
        let departed = |disk: DiskId| self.departed.iter().any(|left| (usize::from(left.0), left.1) == (index, disk));
        let free = |disk: &DiskId| !self.used.contains(disk) && self.map.takes_shards(*disk) && !departed(*disk);
        let crowd = |disk: &DiskId| self.on_node.get(&self.map.disks[disk].node).copied().unwrap_or(0);
        let own = homes.get(index).copied().flatten().filter(free);
        let of_chunk = || homes.iter().flatten().copied().filter(free).min_by_key(crowd);
        let anywhere = || {
            let disks = self.map.ring.row(self.entry.chunk).iter().chain(self.map.disks.keys()).copied();
            disks.filter(free).filter(|disk| crowd(disk) < self.entry.profile.parity()).min_by_key(crowd)
        };
        let to = own.or_else(of_chunk).or_else(|| if cause == Cause::Misplaced { None } else { anywhere() });
        if let Some(disk) = to.or(from) {
            self.count(disk, 1);
        }
        self.used.extend(to);
        to
    }

    fn count(&mut self, disk: DiskId, change: isize) {
        let count = self.on_node.entry(self.map.disks[&disk].node).or_default();
        *count = count.saturating_add_signed(change);
    }
}

#[cfg(test)]
mod tests {
    use placement_map::{DiskState, NodeState};
    use placement_types::{ChunkId, Profile};

    use super::*;
    use crate::doubles::{disk_id, map, node_id};

    fn profile(text: &str) -> Profile {
        text.parse().unwrap()
    }

    fn entry(map: &ClusterMap, number: u128, text: &str) -> ChunkEntry {
        let chunk = ChunkId::from_u128(number << 96 | 7);
        ChunkEntry { chunk, bytes: 1, profile: profile(text), hash: [0; 32], shards: map.plan_write(chunk, profile(text)) }
    }

    #[test]
    fn a_healthy_chunk_needs_nothing_and_waits_for_what_is_only_down_or_full() {
        let mut map = map(5, 2, profile("2+2"));
        let entry = entry(&map, 3, "2+2");
        assert_eq!(
            diagnose(&map, &entry, &[]),
            Diagnosis { kept: 4, readable: 4, needs: vec![], coding: Coding::Current, cornered: false }
        );
        let [first, second] = [entry.shards[0].unwrap(), entry.shards[1].unwrap()];
        let node = map.disks[&first].node;
        map.nodes.get_mut(&node).unwrap().state = NodeState::Down;
        map.disks.get_mut(&second).unwrap().state = DiskState::ReadOnly;
        assert_eq!(
            diagnose(&map, &entry, &[]),
            Diagnosis { kept: 4, readable: 3, needs: vec![], coding: Coding::Current, cornered: false }
        );
    }

    #[test]
    fn each_cause_has_its_place_and_the_urgent_come_first() {
        let mut map = map(7, 2, profile("2+2"));
        let mut entry = entry(&map, 3, "2+2");
        let [drained, lost, kept] = [0, 1, 2].map(|index: usize| entry.shards[index].unwrap());
        map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining;
        let node = map.disks[&lost].node;
        map.nodes.get_mut(&node).unwrap().state = NodeState::Lost;
        let elsewhere = *map.disks.keys().find(|disk| !map.ring.row(entry.chunk)[..4].contains(disk)).unwrap();
        entry.shards[3] = Some(elsewhere);
        let diagnosis = diagnose(&map, &entry, &[]);
        assert_eq!((diagnosis.kept, diagnosis.readable), (3, 3));
        let causes: Vec<(Cause, usize)> = diagnosis.needs.iter().map(|need| (need.cause, need.index)).collect();
        assert_eq!(causes[..2], [(Cause::Lost, 1), (Cause::Leaving, 0)]);
        let mut after: Vec<Option<DiskId>> = entry.shards.clone();
        for need in &diagnosis.needs {
            assert_eq!(need.from, entry.shards[need.index]);
            assert!(map.takes_shards(need.to.unwrap()));
            after[need.index] = need.to;
        }
        assert_eq!(after[2], Some(kept));
        let nodes: BTreeSet<NodeId> = after.iter().flatten().map(|disk| map.disks[disk].node).collect();
        assert_eq!(nodes.len(), 4, "one shard on each of four nodes: {after:?}");
        entry.shards = after;
        assert_eq!(diagnose(&map, &entry, &[]).needs, vec![], "done is done");
    }

    #[test]
    fn a_slot_does_not_return_to_a_disk_it_just_left() {
        let mut map = map(6, 1, profile("2+2"));
        let entry = entry(&map, 3, "2+2");
        let drained = entry.shards[1].unwrap();
        map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining;
        let first = diagnose(&map, &entry, &[]).needs[0].to.unwrap();
        let second = diagnose(&map, &entry, &[(1, first)]).needs[0].to.unwrap();
        assert_ne!(first, second);
        assert_eq!(diagnose(&map, &entry, &[(2, first)]).needs[0].to, Some(first), "another slot may go there");
    }

    #[test]
    fn a_chunk_with_a_shard_that_may_only_go_where_it_was_is_written_anew() {
        let mut map = map(5, 1, profile("2+2"));
        let mut entry = entry(&map, 3, "2+2");
        let [drained, lost] = [1, 2].map(|index: usize| entry.shards[index].unwrap());
        map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining;
        let free = diagnose(&map, &entry, &[]).needs[0].to.unwrap();
        assert_eq!(diagnose(&map, &entry, &[]).step(), Some(Step::Vacate));
        assert_eq!(diagnose(&map, &entry, &[(1, free)]).step(), Some(Step::Renew));
        // Another shard that has somewhere to go comes first.
        entry.shards[2] = None;
        map.disks.get_mut(&lost).unwrap().state = DiskState::ReadOnly;
        assert_eq!(diagnose(&map, &entry, &[(1, free)]).step(), Some(Step::Rebuild));
        assert_eq!(diagnose(&map, &entry, &[(1, free), (2, free)]).step(), None, "three disks take no four shards");
        map.disks.get_mut(&lost).unwrap().state = DiskState::Good;
        assert_eq!(diagnose(&map, &entry, &[(1, free), (1, lost), (2, free), (2, lost)]).step(), Some(Step::Renew));
        let whole = |entry: &ChunkEntry| diagnose(&map, entry, &[]).needs.is_empty();
        entry.shards = map.plan_write(entry.chunk, entry.profile);
        assert!(whole(&entry), "it needs nothing once it is");
        entry.shards[..3].fill(None);
        let gone: Vec<(u8, DiskId)> = (0..3).flat_map(|index| map.disks.keys().map(move |disk| (index, *disk))).collect();
        assert_eq!(diagnose(&map, &entry, &gone).step(), None, "one shard of two is no chunk");
    }

    #[test]
    fn a_removed_disks_shard_is_lost_and_may_have_nowhere_to_go() {
        let mut map = map(4, 1, profile("2+2"));
        let entry = entry(&map, 3, "2+2");
        let removed = entry.shards[2].unwrap();
        map.disks.remove(&removed);
        map.ring.rows.iter_mut().for_each(|row| row.retain(|disk| *disk != removed));
        let need = Need { index: 2, cause: Cause::Lost, from: Some(removed), to: None };
        let expected = Diagnosis { kept: 3, readable: 3, needs: vec![need], coding: Coding::Current, cornered: false };
        assert_eq!(diagnose(&map, &entry, &[]), expected);
        assert_eq!(expected.step(), None, "there is nothing that can be done");
    }

    #[test]
    fn a_chunk_of_another_profile_is_coded_anew_after_what_is_urgent() {
        let old = map(4, 2, profile("2+2"));
        let mut map = map(6, 2, profile("4+2"));
        let step = |map: &ClusterMap, entry: &ChunkEntry| diagnose(map, entry, &[]).step();
        let entry = entry(&old, 3, "2+2");
        assert_ne!(diagnose(&map, &entry, &[]).coding, Coding::Current);
        assert_eq!(step(&map, &entry), Some(Step::Recode));
        assert!(diagnose(&map, &entry, &[]).needs.is_empty(), "none of its shards is moved first");

        let [drained, lost] = [0, 1].map(|index: usize| entry.shards[index].unwrap());
        map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining;
        assert_eq!(step(&map, &entry), Some(Step::Vacate));
        map.disks.get_mut(&lost).unwrap().state = DiskState::Lost;
        assert_eq!(step(&map, &entry), Some(Step::Rebuild));
        map.disks.values_mut().for_each(|disk| disk.role = DiskRole::InUse);
        map.disks.get_mut(&lost).unwrap().state = DiskState::Good;

        // Not while a shard of the new coding would have to be left out.
        let node = *map.nodes.keys().last().unwrap();
        map.nodes.get_mut(&node).unwrap().state = NodeState::Down;
        assert_eq!(
            (step(&map, &entry), diagnose(&map, &entry, &[]).coding),
            (Some(Step::Recode), Coding::Outdated),
            "a node has two disks"
        );
        map.disks.values_mut().skip(5).for_each(|disk| disk.state = DiskState::ReadOnly);
        assert_eq!(diagnose(&map, &entry, &[]).coding, Coding::OutdatedForNow);
        assert_ne!(step(&map, &entry), Some(Step::Recode));
    }

    #[test]
    fn a_chunk_that_cannot_be_completed_as_it_is_may_be_coded_anew() {
        let before = map(4, 1, profile("2+2"));
        let entry = entry(&before, 3, "2+2");
        let mut after = before.clone();
        let removed = entry.shards[2].unwrap();
        after.disks.remove(&removed);
        after.ring.rows.iter_mut().for_each(|row| row.retain(|disk| *disk != removed));
        assert_eq!(diagnose(&after, &entry, &[]).step(), None);
        after.profile = profile("2+1");
        assert_eq!(diagnose(&after, &entry, &[]).step(), Some(Step::Recode));
        let others: Vec<DiskId> = after.disks.keys().copied().filter(|disk| entry.shards.contains(&Some(*disk))).collect();
        others[..2].iter().for_each(|disk| after.disks.get_mut(disk).unwrap().state = DiskState::Dead);
        assert_eq!(diagnose(&after, &entry, &[]).step(), None, "one shard of two is no chunk");
    }

    #[test]
    fn shards_that_only_sit_in_each_others_slots_stay() {
        let map = map(5, 1, profile("2+2"));
        let mut entry = entry(&map, 3, "2+2");
        entry.shards.swap(0, 3);
        assert_eq!(diagnose(&map, &entry, &[]).needs, vec![]);
        assert!(map.disks.contains_key(&disk_id(0, 0)) && map.nodes.contains_key(&node_id(0)));
    }
}
