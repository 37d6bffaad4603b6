//! Random histories against the model: commands repeat, come late and in any order, and after each one everything that can be
//! asked is compared.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use placement_types::{ObjectKey, Timestamp, TxnId, UploadId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use storage_node_proto::command::{Change, Command, WriteCondition};
use storage_node_proto::object::{
    ChunkEntry, Data, DataRef, ObjectAttributes, ObjectRecord, PartSummary, Upload, Version, VersionBody, VersionId,
    VersionSelector, Versioning,
};
use storage_node_proto::query::{Answer, ListItem, ListRange, Query};

use super::model::{HOUR_MILLIS, Model, ModelGarbage};
use super::replica::{Replica, chunk, disk, key, record, shelf, txn};

const KEYS: [&str; 3] = ["a", "a/b", "ab"];
/// Between commands: a few of them span the times that the state machine waits for.
const STEP_MILLIS: u64 = 20 * 60 * 1000;

/// What a history does next; numbers are reduced to what exists.
#[derive(Debug, Clone)]
enum Action {
    Put {
        key: usize,
        versioning: Versioning,
        condition: u8,
        data: u8,
    },
    Delete {
        key: usize,
        versioning: Versioning,
        condition: u8,
        version: Option<usize>,
    },
    SetAttributes {
        key: usize,
        version: Option<usize>,
        stale: bool,
    },
    CreateUpload {
        key: usize,
    },
    PutPart {
        upload: usize,
        number: u16,
        data: u8,
    },
    Complete {
        upload: usize,
        versioning: Versioning,
        condition: u8,
        mask: u8,
        stale: bool,
    },
    AbortUpload {
        upload: usize,
    },
    Move {
        chunk: usize,
        index: u8,
        to: u64,
        stale: bool,
    },
    Recode {
        chunk: usize,
        first: u64,
        stale: bool,
    },
    FinishGc {
        share: u8,
    },
    FinishGcRows {
        share: u8,
    },
    AbortTxns {
        from: u64,
    },
    Fence,
    Unfence,
    Purge,
    Forget,
    /// Sends an earlier command again, byte for byte.
    Repeat {
        command: usize,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let versioning = || prop_oneof![Just(Versioning::Unversioned), Just(Versioning::Enabled), Just(Versioning::Suspended)];
    let keys = || 0..KEYS.len();
    let action = prop_oneof![
        6 => (keys(), versioning(), 0u8..8, 0u8..4)
            .prop_map(|(key, versioning, condition, data)| Action::Put { key, versioning, condition, data }),
        4 => (keys(), versioning(), 0u8..8, proptest::option::of(0usize..4))
            .prop_map(|(key, versioning, condition, version)| Action::Delete { key, versioning, condition, version }),
        1 => (keys(), proptest::option::of(0usize..4), any::<bool>())
            .prop_map(|(key, version, stale)| Action::SetAttributes { key, version, stale }),
        2 => keys().prop_map(|key| Action::CreateUpload { key }),
        5 => (0usize..4, 1u16..4, 0u8..4).prop_map(|(upload, number, data)| Action::PutPart { upload, number, data }),
        3 => (0usize..4, versioning(), 0u8..8, 1u8..8, any::<bool>()).prop_map(|(upload, versioning, condition, mask, stale)| {
            Action::Complete { upload, versioning, condition, mask, stale: stale && mask > 4 }
        }),
        1 => (0usize..4).prop_map(|upload| Action::AbortUpload { upload }),
        5 => (0usize..8, 0u8..4, 0u64..7, 0u8..8)
            .prop_map(|(chunk, index, to, stale)| Action::Move { chunk, index, to, stale: stale == 0 }),
        2 => (0usize..8, 1u64..5, 0u8..8)
            .prop_map(|(chunk, first, stale)| Action::Recode { chunk, first, stale: stale == 0 }),
        2 => (0u8..3).prop_map(|share| Action::FinishGc { share }),
        1 => (0u8..3).prop_map(|share| Action::FinishGcRows { share }),
        1 => (0u64..60).prop_map(|from| Action::AbortTxns { from }),
        1 => Just(Action::Fence),
        2 => Just(Action::Unfence),
        1 => Just(Action::Purge),
        1 => Just(Action::Forget),
        4 => (0usize..60).prop_map(|command| Action::Repeat { command }),
    ];
    proptest::collection::vec(action, 1..60)
}

/// A history under way: the replica, the model, and what was sent so far.
#[derive(Default)]
struct History {
    replica: Replica,
    model: Model,
    sent: Vec<Command>,
    uploads: Vec<(ObjectKey, UploadId)>,
    chunks: u64,
}

impl History {
    fn step(&mut self, action: &Action) {
        let Some(command) = self.command(action) else { return };
        self.sent.push(command.clone());
        let told = self.replica.apply(&command);
        let expected = self.model.apply(&command, &told);
        assert_eq!(told, expected, "{command:?}");
        self.compare();
    }

    fn send(&mut self, n: u64, change: Change) {
        let command = Command { txn: txn(n), time: time_of(n), change };
        let told = self.replica.apply(&command);
        let expected = self.model.apply(&command, &told);
        assert_eq!(told, expected, "{command:?}");
    }

    fn command(&mut self, action: &Action) -> Option<Command> {
        let n = self.sent.len() as u64 + 1;
        let time = time_of(n);
        let writer = txn(n);
        let shelf = shelf();
        let change = match action {
            Action::Put { key: at, versioning, condition, data } => {
                let data = self.data(*data);
                let record = record(writer, &format!("e{}", n % 3), data.as_ref());
                let condition = condition_of(*condition);
                Change::Put { shelf, key: key(KEYS[*at]), versioning: *versioning, condition, record, data }
            }
            Action::Delete { key: at, versioning, condition, version } => {
                let selector = self.selector(at, version);
                let condition = condition_of(*condition);
                Change::Delete { shelf, key: key(KEYS[*at]), versioning: *versioning, condition, selector }
            }
            Action::SetAttributes { key: at, version, stale } => {
                let selector = self.selector(at, version);
                let attributes = ObjectAttributes { tags: vec![("n".into(), n.to_string())], ..ObjectAttributes::default() };
                let versions = self.model.versions.get(&key(KEYS[*at])).cloned().unwrap_or_default();
                let chosen = versions.iter().rev().find(|version| match selector {
                    VersionSelector::Current => true,
                    VersionSelector::Exact(id) => version.id == id,
                });
                let written_by = chosen.filter(|_| !stale).map_or(txn(9999), |version| version.txn);
                Change::SetAttributes { shelf, key: key(KEYS[*at]), selector, written_by, attributes }
            }
            Action::CreateUpload { key: at } => {
                let id = UploadId::from_u128(u128::from(n));
                let attributes = ObjectAttributes { storage_class: format!("class {n}"), ..ObjectAttributes::default() };
                self.uploads.push((key(KEYS[*at]), id));
                Change::CreateUpload {
                    shelf,
                    key: key(KEYS[*at]),
                    upload: Upload { id, initiated: time, attributes, checksum: None },
                }
            }
            Action::PutPart { upload, number, data } => {
                let (key, upload) = self.upload(*upload)?;
                let (number, md5, checksum) = (*number, [n as u8; 16], None);
                Change::PutPart { shelf, key, upload, number, md5, checksum, data: self.data(*data) }
            }
            Action::Complete { upload, versioning, condition, mask, stale } => {
                let (key, upload) = self.upload(*upload)?;
                let record = self.list(&key, upload, *mask, *stale)?;
                Change::CompleteUpload {
                    shelf,
                    key,
                    upload,
                    versioning: *versioning,
                    condition: condition_of(*condition),
                    record,
                }
            }
            Action::AbortUpload { upload } => {
                let (key, upload) = self.upload(*upload)?;
                Change::AbortUpload { shelf, key, upload }
            }
            Action::Move { chunk, index, to, stale } => self.a_move(*chunk, *index, *to, *stale)?,
            Action::Recode { chunk, first, stale } => self.a_recoding(*chunk, *first, *stale)?,
            Action::FinishGc { share } => {
                let chunks = self.garbage(*share).map(|one| one.entry.chunk).collect();
                Change::FinishGc { chunks, before: Timestamp::from_millis(time.as_millis() - u64::from(*share) * STEP_MILLIS) }
            }
            Action::FinishGcRows { share } => {
                Change::FinishGcRows { rows: self.garbage(*share).map(|one| (one.entry.chunk, one.since)).collect() }
            }
            Action::AbortTxns { from } => Change::AbortTxns { txns: vec![txn(*from), txn(from + 1)] },
            Action::Fence => Change::FenceShelf { shelf },
            Action::Unfence => Change::UnfenceShelf { shelf },
            Action::Purge => Change::PurgeShelf { shelf },
            Action::Forget => Change::Forget { before: Timestamp::from_millis(time.as_millis() - 2 * HOUR_MILLIS) },
            Action::Repeat { command } => return self.sent.get(command % self.sent.len().max(1)).cloned(),
        };
        Some(Command { txn: writer, time, change })
    }

    /// All garbage, or every second row.
    fn garbage(&self, share: u8) -> impl Iterator<Item = &ModelGarbage> {
        let kept = move |at: usize| share == 0 || at % 2 == usize::from(share) - 1;
        self.model.garbage.iter().enumerate().filter(move |(at, _)| kept(*at)).map(|(_, one)| one)
    }

    fn upload(&self, at: usize) -> Option<(ObjectKey, UploadId)> {
        // Counted from the newest, so that most uploads meant are still in progress.
        self.uploads.iter().rev().nth(at).cloned()
    }

    fn selector(&self, at: &usize, version: &Option<usize>) -> VersionSelector {
        let versions = self.model.versions.get(&key(KEYS[*at])).map_or(&[][..], Vec::as_slice);
        match version {
            None => VersionSelector::Current,
            Some(3) => VersionSelector::Exact(VersionId::Id { sequence: 1, salt: 77 }),
            Some(at) => VersionSelector::Exact(versions.get(*at).map_or(VersionId::Null, |version| version.id)),
        }
    }

    fn data(&mut self, kind: u8) -> Option<Data> {
        let mut chunk = |disks| {
            self.chunks += 1;
            chunk(self.chunks, 100, disks)
        };
        match kind {
            0 => None,
            1 => Some(Data::Inline(Bytes::from_static(b"hello"))),
            2 => Some(Data::Chunks(vec![chunk([1, 2, 3, 4])])),
            _ => Some(Data::Chunks(vec![chunk([1, 2, 3, 4]), chunk([3, 0, 5, 6])])),
        }
    }

    /// The list of a Complete: the parts that `mask` names, with the first one's transaction wrong when `stale`.
    fn list(&self, key: &ObjectKey, upload: UploadId, mask: u8, stale: bool) -> Option<ObjectRecord> {
        let found = self.model.uploads.get(&(key.clone(), upload));
        let mut parts = Vec::new();
        let mut data = Vec::new();
        for (number, part) in found.iter().flat_map(|found| &found.parts).filter(|(number, _)| mask >> (*number - 1) & 1 == 1) {
            let bytes = self.model.data[&(key.clone(), part.txn)].data.bytes();
            assert_ne!(part.md5, [0; 16]);
            parts.push(PartSummary { number: *number, bytes, checksum: None });
            data.push(DataRef { txn: part.txn, bytes });
        }
        if parts.is_empty() {
            // As a repeated Complete of an upload that is gone; half of the time with the etag it was completed with.
            parts.push(PartSummary { number: 1, bytes: 5, checksum: None });
            data.push(DataRef { txn: txn(8888), bytes: 5 });
        } else if stale {
            data[0].txn = txn(8888);
        }
        let bytes = data.iter().map(|data| data.bytes).sum();
        Some(ObjectRecord { parts, data, bytes, ..record(txn(0), &format!("m-{}", mask % 2), None) })
    }

    /// One of the chunks there are, and where it is filed.
    fn a_chunk(&self, at: usize) -> Option<(ObjectKey, TxnId, ChunkEntry)> {
        let mut filed = Vec::new();
        for ((key, owner), record) in &self.model.data {
            if let Data::Chunks(chunks) = &record.data {
                filed.extend(chunks.iter().map(|chunk| (key.clone(), *owner, chunk.clone())));
            }
        }
        filed.get(at % filed.len().max(1)).cloned()
    }

    fn a_move(&self, at: usize, index: u8, to: u64, stale: bool) -> Option<Change> {
        let (key, owner, chunk) = self.a_chunk(at)?;
        let from = if stale { Some(disk(99)) } else { chunk.shards.get(usize::from(index)).copied().flatten() };
        let to = (to > 0).then(|| disk(to));
        (from != to).then_some(Change::MoveShard { shelf: shelf(), key, owner, chunk: chunk.chunk, index, from, to })
    }

    /// From 2+2 to 2+1 and back.
    fn a_recoding(&mut self, at: usize, first: u64, stale: bool) -> Option<Change> {
        let (key, owner, mut from) = self.a_chunk(at)?;
        self.chunks += 1;
        let mut to = chunk(self.chunks, from.bytes, [first, first + 1, first + 2, first + 3]);
        if from.profile == to.profile {
            to.profile = "2+1".parse().expect("a legal profile");
            to.shards.truncate(3);
        }
        if stale {
            from.shards[0] = Some(disk(99));
        }
        Some(Change::Recode { shelf: shelf(), key, owner, from, to })
    }

    /// Everything that can be asked, against the model.
    fn compare(&self) {
        let (replica, model) = (&self.replica, &self.model);
        let everyone: Vec<TxnId> = (0..=self.sent.len() as u64 + 1).map(txn).collect();
        let referenced: Vec<TxnId> = everyone.iter().copied().filter(|txn| model.referenced().contains(txn)).collect();
        assert_eq!(replica.ask(&Query::Referenced { txns: everyone.clone() }), Answer::Referenced { txns: referenced });
        self.compare_queues();
        if model.fenced {
            let list = ListRange { limit: 1, ..ListRange::default() };
            assert_eq!(replica.ask(&Query::ListObjects { shelf: shelf(), list }), Answer::BucketGone);
            return;
        }

        let mut listed = Vec::new();
        for (key, versions) in &model.versions {
            for (at, version) in versions.iter().rev().enumerate() {
                listed.push(ListItem::Entry { key: key.clone(), value: (without_data(version.clone()), at == 0) });
                let selector = VersionSelector::Exact(version.id);
                self.compare_version(key, selector, version);
            }
            match versions.last() {
                Some(Version { id, body: VersionBody::DeleteMarker, .. }) => {
                    let query = Query::Version { shelf: shelf(), key: key.clone(), selector: VersionSelector::Current };
                    assert_eq!(replica.ask(&query), Answer::NoSuchKey { marker: Some(*id) });
                }
                Some(version) => self.compare_version(key, VersionSelector::Current, version),
                None => {}
            }
            let records = everyone.iter().map(|txn| model.data.get(&(key.clone(), *txn)).map(|record| record.data.clone()));
            let query = Query::Data { shelf: shelf(), key: key.clone(), txns: everyone.clone() };
            assert_eq!(replica.ask(&query), Answer::Data { records: records.collect() });
        }
        let list = ListRange { limit: 1000, ..ListRange::default() };
        let query = Query::ListVersions { shelf: shelf(), list, version_marker: None };
        assert_eq!(replica.ask(&query), Answer::Versions { items: listed, more: false });
        self.compare_uploads();
    }

    fn compare_version(&self, key: &ObjectKey, selector: VersionSelector, version: &Version) {
        let inline = match &version.body {
            VersionBody::Object(record) if record.data.is_empty() => Some(Bytes::new()),
            VersionBody::Object(record) if record.data.len() == 1 => {
                match &self.model.data[&(key.clone(), record.data[0].txn)].data {
                    Data::Inline(bytes) => Some(bytes.clone()),
                    Data::Chunks(_) => None,
                }
            }
            _ => None,
        };
        let query = Query::Version { shelf: shelf(), key: key.clone(), selector };
        assert_eq!(self.replica.ask(&query), Answer::Version { version: version.clone(), inline });
    }

    fn compare_uploads(&self) {
        let list = ListRange { limit: 1000, ..ListRange::default() };
        let items = self.model.uploads.iter().map(|((key, _), found)| (key.clone(), found.upload.clone()));
        let items = items.map(|(key, value)| ListItem::Entry { key, value }).collect();
        let query = Query::ListUploads { shelf: shelf(), list, upload_marker: None };
        assert_eq!(self.replica.ask(&query), Answer::Uploads { items, more: false });
        for (key, upload) in &self.uploads {
            let query = Query::ListParts { shelf: shelf(), key: key.clone(), upload: *upload, after: 0, limit: 10 };
            match (self.model.uploads.get(&(key.clone(), *upload)), self.replica.ask(&query)) {
                (None, answer) => assert_eq!(answer, Answer::NoSuchUpload),
                (Some(found), Answer::Parts { parts, more: false }) => {
                    let told: Vec<_> = parts.iter().map(|part| (part.number, part.data.txn, part.md5)).collect();
                    let known: Vec<_> = found.parts.iter().map(|(number, part)| (*number, part.txn, part.md5)).collect();
                    assert_eq!(told, known);
                }
                (Some(_), other) => panic!("unexpected {other:?}"),
            }
            let query = Query::CompletedUpload { shelf: shelf(), key: key.clone(), upload: *upload };
            let expected = match self.model.completed.get(&(key.clone(), *upload)) {
                Some((_, version, modified, etag)) => {
                    Answer::CompletedUpload { version: *version, modified: *modified, etag: etag.clone(), checksum: None }
                }
                None => Answer::NoSuchUpload,
            };
            assert_eq!(self.replica.ask(&query), expected);
        }
    }

    fn compare_queues(&self) {
        let mut expected: Vec<_> = self.model.garbage.iter().map(|one| (one.since, one.entry.clone())).collect();
        expected.sort_by_key(|(since, entry)| (*since, entry.chunk));
        // In pages of two, to see that paging neither skips nor repeats.
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let before = Timestamp::from_millis(u64::MAX);
            let Answer::Garbage { garbage } = self.replica.ask(&Query::Garbage { before, after, limit: 2 }) else { panic!() };
            let Some(last) = garbage.last() else { break };
            after = Some((last.since, last.entry.chunk));
            told.extend(garbage.into_iter().map(|one| (one.since, one.entry)));
        }
        assert_eq!(told, expected);

        let (mut told, mut after) = (BTreeMap::new(), None);
        loop {
            let Answer::Degraded { chunks } = self.replica.ask(&Query::Degraded { after, limit: 2 }) else { panic!() };
            let Some(last) = chunks.last() else { break };
            after = Some(last.entry.chunk);
            told.extend(chunks.into_iter().map(|one| (one.entry.chunk, (one.key, one.owner, one.entry))));
        }
        assert_eq!(told, self.model.degraded());
    }
}

fn time_of(n: u64) -> Timestamp {
    Timestamp::from_millis(10 * HOUR_MILLIS + n * STEP_MILLIS)
}

fn condition_of(kind: u8) -> WriteCondition {
    match kind {
        0 => WriteCondition::Absent,
        1 => WriteCondition::Present,
        2 => WriteCondition::ETag { etag: "e1".into() },
        _ => WriteCondition::None,
    }
}

fn without_data(mut version: Version) -> Version {
    if let VersionBody::Object(record) = &mut version.body {
        record.data.clear();
        record.parts.clear();
    }
    version
}

/// Which outcomes a kind of command had in many histories: a model that agrees on too few shows nothing.
#[test]
fn histories_reach_every_outcome() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached: BTreeSet<(String, String)> = BTreeSet::new();
    for _ in 0..800 {
        let actions = actions().new_tree(&mut runner).expect("a history").current();
        let mut history = History::default();
        for action in &actions {
            history.step(action);
        }
        let mut again = Replica::default();
        for command in &history.sent {
            let name = |text: String| text.split([' ', '{']).next().unwrap_or_default().to_owned();
            reached.insert((name(format!("{:?}", command.change)), name(format!("{:?}", again.apply(command)))));
        }
    }
    let expected = [
        ("Put", "Written BucketGone NoSuchKey PreconditionFailed TxnAborted"),
        ("Delete", "Deleted BucketGone NoSuchKey PreconditionFailed TxnAborted"),
        ("SetAttributes", "Done BucketGone IsDeleteMarker NoSuchKey NoSuchVersion PreconditionFailed TxnAborted"),
        ("CreateUpload", "UploadCreated BucketGone TxnAborted"),
        ("PutPart", "PartWritten BucketGone NoSuchUpload TxnAborted"),
        ("CompleteUpload", "Written BucketGone NoSuchKey NoSuchUpload PartsChanged PreconditionFailed TxnAborted"),
        ("AbortUpload", "UploadAborted BucketGone NoSuchUpload TxnAborted"),
        ("MoveShard", "Done Moved PreconditionFailed TxnAborted"),
        ("Recode", "Done Moved TxnAborted"),
        ("FenceShelf", "Done NotEmpty TxnAborted"),
        ("UnfenceShelf", "Done TxnAborted"),
        ("PurgeShelf", "Done PreconditionFailed TxnAborted"),
        ("AbortTxns", "Done"),
        ("FinishGc", "Done"),
        ("FinishGcRows", "Done"),
        ("Forget", "Done"),
    ];
    let expected = expected
        .iter()
        .flat_map(|(change, outcomes)| outcomes.split(' ').map(|outcome| ((*change).to_owned(), outcome.to_owned())));
    assert_eq!(reached, expected.collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 4096, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_that_of_the_model(actions in actions()) {
        let mut history = History::default();
        for action in &actions {
            history.step(action);
        }
        // And the same log gives the same bytes.
        let mut again = Replica::default();
        for command in &history.sent {
            again.apply(command);
        }
        prop_assert_eq!(&again, &history.replica);
    }

    /// When everything is deleted, collected and forgotten, nothing is left: no row leaks.
    #[test]
    fn an_emptied_group_keeps_no_rows(actions in actions()) {
        let mut history = History::default();
        for action in &actions {
            history.step(action);
        }
        history.step(&Action::Unfence);
        let all = history.model.versions.iter().flat_map(|(key, all)| all.iter().map(|one| (key.clone(), one.id)));
        for (n, (key, id)) in all.collect::<Vec<_>>().into_iter().enumerate() {
            let (versioning, condition) = (Versioning::Enabled, WriteCondition::None);
            let selector = VersionSelector::Exact(id);
            history.send(1000 + n as u64, Change::Delete { shelf: shelf(), key, versioning, condition, selector });
        }
        history.send(5001, Change::FenceShelf { shelf: shelf() });
        history.send(5002, Change::PurgeShelf { shelf: shelf() });
        history.send(5003, Change::UnfenceShelf { shelf: shelf() });
        let chunks = history.model.garbage.iter().map(|one| one.entry.chunk).collect();
        history.send(5004, Change::FinishGc { chunks, before: Timestamp::from_millis(u64::MAX) });
        // The floor rises by steps.
        let before = Timestamp::from_millis(8000 * STEP_MILLIS);
        for n in 9000..9300 {
            history.send(n, Change::Forget { before });
        }
        let left: Vec<u8> = history.replica.rows.keys().map(|row| row[0]).collect();
        // The group's own row stays.
        prop_assert!(left.iter().all(|table| *table == 0x20), "rows are left: {:?}", left);
    }
}
