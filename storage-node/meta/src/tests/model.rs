//! A naive model that knows S3's rules and nothing of rows, sequences or claims.
//!
//! It keeps every version, part and piece of garbage as a value; who is referenced, what is garbage and what is owed it finds
//! by looking at all of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use placement_types::{ChunkId, DiskId, ObjectKey, Timestamp, TxnId, UploadId};
use storage_node_proto::command::{Change, Command, Outcome, WriteCondition};
use storage_node_proto::object::{
    ChunkEntry, Data, ObjectRecord, Upload, Version, VersionBody, VersionId, VersionSelector, Versioning,
};

use crate::limits::FORGET_STEP_MAX;

pub(super) const HOUR_MILLIS: u64 = 60 * 60 * 1000;

#[derive(Debug, Clone)]
pub(super) struct ModelData {
    pub(super) data: Data,
    /// Who wrote the shard in a slot, when not the record's own transaction.
    pub(super) movers: BTreeMap<(ChunkId, u8), TxnId>,
    /// Disks that a slot left: while its old shard is there, and for an hour after.
    pub(super) left: BTreeMap<(ChunkId, u8, DiskId), Option<Timestamp>>,
}

#[derive(Debug, Clone)]
pub(super) struct ModelPart {
    pub(super) txn: TxnId,
    pub(super) md5: [u8; 16],
}

#[derive(Debug, Clone)]
pub(super) struct ModelUpload {
    pub(super) upload: Upload,
    pub(super) parts: BTreeMap<u16, ModelPart>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelGarbage {
    pub(super) entry: ChunkEntry,
    pub(super) since: Timestamp,
    pub(super) writers: BTreeSet<TxnId>,
    /// The record and slot that moved away.
    pub(super) moved: Option<(ObjectKey, TxnId, u8, DiskId)>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Oldest first.
    pub(super) versions: BTreeMap<ObjectKey, Vec<Version>>,
    pub(super) data: BTreeMap<(ObjectKey, TxnId), ModelData>,
    pub(super) uploads: BTreeMap<(ObjectKey, UploadId), ModelUpload>,
    pub(super) completed: BTreeMap<(ObjectKey, UploadId), (Timestamp, VersionId, Timestamp, String)>,
    pub(super) garbage: Vec<ModelGarbage>,
    pub(super) outcomes: BTreeMap<TxnId, (Timestamp, Outcome)>,
    pub(super) aborted: BTreeMap<TxnId, Timestamp>,
    pub(super) fenced: bool,
    pub(super) floor: Timestamp,
    pub(super) sequence: u64,
}

impl Model {
    /// What must come of a command. New version ids are not foretold but must be above all before; `told` is what was said.
    pub(super) fn apply(&mut self, command: &Command, told: &Outcome) -> Outcome {
        match &command.change {
            Change::AbortTxns { txns } => {
                for txn in txns {
                    self.aborted.entry(*txn).or_insert(command.time);
                }
                return Outcome::Done;
            }
            Change::FinishGc { chunks, before } => {
                self.collect(command.time, |one| chunks.contains(&one.entry.chunk) && one.since < *before);
                return Outcome::Done;
            }
            Change::FinishGcRows { rows } => {
                self.collect(command.time, |one| rows.contains(&(one.entry.chunk, one.since)));
                return Outcome::Done;
            }
            Change::Forget { before } => {
                let times = self.outcomes.values().map(|(time, _)| *time).chain(self.aborted.values().copied());
                let oldest = times.chain(self.completed.values().map(|(time, ..)| *time)).min();
                let reach = match oldest {
                    Some(oldest) if oldest < self.floor => self.floor,
                    Some(oldest) if self.floor == Timestamp::default() => oldest.plus(FORGET_STEP_MAX),
                    None if self.floor == Timestamp::default() => self.floor,
                    _ => self.floor.plus(FORGET_STEP_MAX),
                };
                let before = (*before).min(reach);
                self.floor = self.floor.max(before);
                self.outcomes.retain(|_, (time, _)| *time >= before);
                self.aborted.retain(|_, time| *time >= before);
                self.completed.retain(|_, (time, ..)| *time >= before);
                return Outcome::Done;
            }
            _ => {}
        }
        if let Some((_, outcome)) = self.outcomes.get(&command.txn) {
            return outcome.clone();
        }
        if command.time < self.floor || self.aborted.contains_key(&command.txn) {
            return Outcome::TxnAborted;
        }
        let administrative = matches!(
            command.change,
            Change::FenceShelf { .. }
                | Change::UnfenceShelf { .. }
                | Change::PurgeShelf { .. }
                | Change::MoveShard { .. }
                | Change::Recode { .. }
        );
        let outcome = if self.fenced && !administrative { Outcome::BucketGone } else { self.change(command, told) };
        if outcome != Outcome::PartsChanged {
            self.outcomes.insert(command.txn, (command.time, outcome.clone()));
        }
        outcome
    }

    fn change(&mut self, command: &Command, told: &Outcome) -> Outcome {
        let time = command.time;
        match &command.change {
            Change::Put { key, versioning, condition, record, data, .. } => {
                if let Some(refusal) = self.refusal(key, condition) {
                    return refusal;
                }
                let version = self.add(command, key, *versioning, time, VersionBody::Object(record.clone()), told);
                if let Some(data) = data {
                    self.file(key, command.txn, data);
                }
                Outcome::Written { version, modified: time }
            }
            Change::Delete { key, versioning, condition, selector, .. } => {
                if let Some(refusal) = self.refusal(key, condition) {
                    return refusal;
                }
                let (target, mark) = match (selector, versioning) {
                    (VersionSelector::Exact(id), _) => (Some(*id), false),
                    (VersionSelector::Current, Versioning::Unversioned) => (Some(VersionId::Null), false),
                    (VersionSelector::Current, Versioning::Suspended) => (Some(VersionId::Null), true),
                    (VersionSelector::Current, Versioning::Enabled) => (None, true),
                };
                let removed = target.and_then(|id| self.remove(key, id, command));
                let marker = mark.then(|| self.add(command, key, *versioning, time, VersionBody::DeleteMarker, told));
                let removed_marker = removed.as_ref().is_some_and(|version| version.body == VersionBody::DeleteMarker);
                Outcome::Deleted { removed: removed.map(|version| version.id), removed_marker, marker }
            }
            Change::SetAttributes { key, selector, written_by, attributes, .. } => {
                let versions = self.versions.get_mut(key);
                let found = versions.and_then(|versions| match selector {
                    VersionSelector::Current => versions.last_mut(),
                    VersionSelector::Exact(id) => versions.iter_mut().find(|version| version.id == *id),
                });
                match (found, selector) {
                    (None, VersionSelector::Current) => Outcome::NoSuchKey,
                    (None, VersionSelector::Exact(_)) => Outcome::NoSuchVersion,
                    (Some(version), _) => match &mut version.body {
                        VersionBody::DeleteMarker => Outcome::IsDeleteMarker,
                        VersionBody::Object(_) if version.txn != *written_by => Outcome::PreconditionFailed,
                        VersionBody::Object(record) => {
                            record.attributes = attributes.clone();
                            Outcome::Done
                        }
                    },
                }
            }
            Change::CreateUpload { key, upload, .. } => {
                self.uploads.insert((key.clone(), upload.id), ModelUpload { upload: upload.clone(), parts: BTreeMap::new() });
                Outcome::UploadCreated
            }
            Change::PutPart { key, upload, number, md5, data, .. } => {
                let Some(found) = self.uploads.get_mut(&(key.clone(), *upload)) else { return Outcome::NoSuchUpload };
                let older = found.parts.insert(*number, ModelPart { txn: command.txn, md5: *md5 });
                if let Some(older) = older {
                    self.discard(key, older.txn, command);
                }
                self.file(key, command.txn, data.as_ref().unwrap_or(&Data::Inline(Bytes::new())));
                Outcome::PartWritten
            }
            Change::CompleteUpload { key, upload, versioning, condition, record, .. } => {
                let id = (key.clone(), *upload);
                let Some(found) = self.uploads.get(&id).cloned() else {
                    return match self.completed.get(&id) {
                        Some((_, version, modified, etag)) if *etag == record.etag => {
                            Outcome::Written { version: *version, modified: *modified }
                        }
                        _ => Outcome::NoSuchUpload,
                    };
                };
                for (listed, data) in record.parts.iter().zip(&record.data) {
                    if found.parts.get(&listed.number).is_none_or(|part| part.txn != data.txn) {
                        return Outcome::PartsChanged;
                    }
                }
                if let Some(refusal) = self.refusal(key, condition) {
                    return refusal;
                }
                let modified = found.upload.initiated;
                let body = ObjectRecord { attributes: found.upload.attributes.clone(), ..record.clone() };
                let version = self.add(command, key, *versioning, modified, VersionBody::Object(body), told);
                self.uploads.remove(&id);
                for (number, part) in &found.parts {
                    if !record.parts.iter().any(|listed| listed.number == *number) {
                        self.discard(key, part.txn, command);
                    }
                }
                self.completed.insert(id, (time, version, modified, record.etag.clone()));
                Outcome::Written { version, modified }
            }
            Change::AbortUpload { key, upload, .. } => match self.uploads.remove(&(key.clone(), *upload)) {
                None => Outcome::NoSuchUpload,
                Some(found) => {
                    for part in found.parts.values() {
                        self.discard(key, part.txn, command);
                    }
                    Outcome::UploadAborted
                }
            },
            Change::MoveShard { key, owner, chunk, index, from, to, .. } => {
                self.move_shard(command, key, *owner, *chunk, *index, *from, *to)
            }
            Change::Recode { key, owner, from, to, .. } => self.recode(command, key, *owner, from, to),
            Change::FenceShelf { .. } => {
                if !self.fenced && self.versions.values().any(|versions| !versions.is_empty()) {
                    return Outcome::NotEmpty;
                }
                self.fenced = true;
                Outcome::Done
            }
            Change::UnfenceShelf { .. } => {
                self.fenced = false;
                Outcome::Done
            }
            Change::PurgeShelf { .. } => {
                if !self.fenced {
                    return Outcome::PreconditionFailed;
                }
                for ((key, _), found) in std::mem::take(&mut self.uploads) {
                    for part in found.parts.values() {
                        self.discard(&key, part.txn, command);
                    }
                }
                Outcome::Done
            }
            Change::AbortTxns { .. }
            | Change::FinishGc { .. }
            | Change::FinishGcRows { .. }
            | Change::Forget { .. }
            | Change::Nothing {} => unreachable!(),
        }
    }

    /// Lets go of garbage.
    fn collect(&mut self, now: Timestamp, is_gone: impl Fn(&ModelGarbage) -> bool) {
        let (gone, left) = self.garbage.drain(..).partition(is_gone);
        self.garbage = left;
        for one in gone {
            if let Some((key, owner, index, disk)) = one.moved
                && let Some(data) = self.data.get_mut(&(key, owner))
                && let Some(freed) = data.left.get_mut(&(one.entry.chunk, index, disk))
            {
                *freed = Some(now);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    fn move_shard(
        &mut self,
        command: &Command,
        key: &ObjectKey,
        owner: TxnId,
        id: ChunkId,
        index: u8,
        from: Option<DiskId>,
        to: Option<DiskId>,
    ) -> Outcome {
        let Some(record) = self.data.get_mut(&(key.clone(), owner)) else { return Outcome::Moved };
        let Data::Chunks(chunks) = &mut record.data else { return Outcome::Moved };
        let Some(chunk) = chunks.iter_mut().find(|chunk| chunk.chunk == id) else { return Outcome::Moved };
        if chunk.shards.get(usize::from(index)) != Some(&from) {
            return Outcome::Moved;
        }
        let still_there = |disk| match record.left.get(&(id, index, disk)) {
            None => false,
            Some(None) => true,
            Some(Some(freed)) => command.time.as_millis() < freed.as_millis() + HOUR_MILLIS,
        };
        let refused = match to {
            Some(disk) => chunk.shards.contains(&Some(disk)) || still_there(disk),
            None => chunk.shards.iter().flatten().count() <= chunk.profile.data(),
        };
        if refused {
            return Outcome::PreconditionFailed;
        }
        chunk.shards[usize::from(index)] = to;
        let writer = record.movers.remove(&(id, index)).unwrap_or(owner);
        if let Some(disk) = from {
            let mut entry = chunk.clone();
            entry.shards = vec![None; chunk.shards.len()];
            entry.shards[usize::from(index)] = Some(disk);
            record.left.insert((id, index, disk), None);
            let moved = Some((key.clone(), owner, index, disk));
            self.garbage.push(ModelGarbage { entry, since: command.time, writers: BTreeSet::from([writer]), moved });
        }
        // The shard of an empty slot is the record's own.
        if from.is_some() && to.is_some() {
            record.movers.insert((id, index), command.txn);
        }
        Outcome::Done
    }

    fn recode(&mut self, command: &Command, key: &ObjectKey, owner: TxnId, from: &ChunkEntry, to: &ChunkEntry) -> Outcome {
        let Some(record) = self.data.get_mut(&(key.clone(), owner)) else { return Outcome::Moved };
        let Data::Chunks(chunks) = &mut record.data else { return Outcome::Moved };
        let Some(chunk) = chunks.iter_mut().find(|chunk| *chunk == from) else { return Outcome::Moved };
        *chunk = to.clone();
        let (old, kept) = std::mem::take(&mut record.movers).into_iter().partition(|((id, _), _)| *id == from.chunk);
        record.movers = kept;
        record.movers.extend((0..to.shards.len()).map(|index| ((to.chunk, index as u8), command.txn)));
        record.left.retain(|(id, ..), _| *id != from.chunk);
        let old: BTreeMap<(ChunkId, u8), TxnId> = old;
        let writers = old.into_values().chain([owner]).collect();
        self.garbage.push(ModelGarbage { entry: from.clone(), since: command.time, writers, moved: None });
        Outcome::Done
    }

    fn refusal(&self, key: &ObjectKey, condition: &WriteCondition) -> Option<Outcome> {
        let current = self.versions.get(key).and_then(|versions| versions.last());
        let etag = current.and_then(|version| match &version.body {
            VersionBody::Object(record) => Some(record.etag.clone()),
            VersionBody::DeleteMarker => None,
        });
        match condition {
            WriteCondition::None => None,
            WriteCondition::Absent => etag.map(|_| Outcome::PreconditionFailed),
            WriteCondition::Present => etag.is_none().then_some(Outcome::NoSuchKey),
            WriteCondition::ETag { etag: wanted } => match etag {
                None => Some(Outcome::NoSuchKey),
                Some(etag) => (etag != *wanted).then_some(Outcome::PreconditionFailed),
            },
        }
    }

    fn add(
        &mut self,
        command: &Command,
        key: &ObjectKey,
        versioning: Versioning,
        modified: Timestamp,
        body: VersionBody,
        told: &Outcome,
    ) -> VersionId {
        let id = if versioning == Versioning::Enabled {
            match told {
                Outcome::Written { version: VersionId::Id { sequence, salt }, .. }
                | Outcome::Deleted { marker: Some(VersionId::Id { sequence, salt }), .. } => {
                    assert!(*sequence > self.sequence, "version ids grow");
                    assert_eq!(u128::from(*salt), command.txn.as_u128() >> 64);
                    self.sequence = *sequence;
                    VersionId::Id { sequence: *sequence, salt: *salt }
                }
                other => panic!("a new version was due, and {other:?} came"),
            }
        } else {
            self.remove(key, VersionId::Null, command);
            VersionId::Null
        };
        let version = Version { id, txn: command.txn, modified, body };
        self.versions.entry(key.clone()).or_default().push(version);
        id
    }

    fn remove(&mut self, key: &ObjectKey, id: VersionId, command: &Command) -> Option<Version> {
        let versions = self.versions.get_mut(key)?;
        let at = versions.iter().position(|version| version.id == id)?;
        let version = versions.remove(at);
        if let VersionBody::Object(record) = &version.body {
            for data in &record.data {
                self.discard(key, data.txn, command);
            }
        }
        Some(version)
    }

    fn file(&mut self, key: &ObjectKey, txn: TxnId, data: &Data) {
        let record = ModelData { data: data.clone(), movers: BTreeMap::new(), left: BTreeMap::new() };
        assert!(self.data.insert((key.clone(), txn), record).is_none());
    }

    fn discard(&mut self, key: &ObjectKey, txn: TxnId, command: &Command) {
        let record = self.data.remove(&(key.clone(), txn)).expect("a record belongs to one version or part");
        if let Data::Chunks(chunks) = record.data {
            for entry in chunks {
                let movers = record.movers.iter().filter(|((id, _), _)| *id == entry.chunk).map(|(_, txn)| *txn);
                let writers = movers.chain([txn]).collect();
                self.garbage.push(ModelGarbage { entry, since: command.time, writers, moved: None });
            }
        }
    }

    pub(super) fn referenced(&self) -> BTreeSet<TxnId> {
        let records = self.data.iter().flat_map(|((_, owner), record)| record.movers.values().copied().chain([*owner]));
        records.chain(self.garbage.iter().flat_map(|one| one.writers.iter().copied())).collect()
    }

    pub(super) fn degraded(&self) -> BTreeMap<ChunkId, (ObjectKey, TxnId, ChunkEntry)> {
        let mut degraded = BTreeMap::new();
        for ((key, owner), record) in &self.data {
            let Data::Chunks(chunks) = &record.data else { continue };
            for chunk in chunks.iter().filter(|chunk| chunk.shards.contains(&None)) {
                degraded.insert(chunk.chunk, (key.clone(), *owner, chunk.clone()));
            }
        }
        degraded
    }
}
