//! A replica of one group as the tests drive it: a sorted map of rows, and commands by their bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use placement_types::{BucketId, ChunkId, DiskId, ObjectKey, Timestamp, TxnId};
use storage_node_kv::{KvError, KvRead, Overlay, Step, WriteOp};
use storage_node_proto::command::{Change, Command, Outcome, Shelf};
use storage_node_proto::object::{ChunkEntry, Data, DataRef, ObjectAttributes, ObjectRecord};
use storage_node_proto::query::{Answer, Query};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) rows: BTreeMap<Bytes, Bytes>,
    applied: u64,
}

impl KvRead for Replica {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        let mut from = Bytes::copy_from_slice(from);
        'seek: loop {
            for (row, value) in self.rows.range(from.clone()..) {
                if !to.is_empty() && row.as_ref() >= to {
                    return Ok(());
                }
                match visit(row, value) {
                    Step::Next => {}
                    Step::Seek(next) => {
                        assert!(next.as_slice() > row.as_ref(), "a seek must go forward");
                        from = Bytes::from(next);
                        continue 'seek;
                    }
                    Step::Stop => return Ok(()),
                }
            }
            return Ok(());
        }
    }
}

impl Replica {
    /// Applies an entry and returns what changed with the outcome's bytes.
    pub(super) fn apply_bytes(&mut self, entry: &[u8]) -> (Bytes, Vec<WriteOp>) {
        self.applied += 1;
        let mut overlay = Overlay::new(&*self);
        let outcome = crate::apply(&mut overlay, self.applied, entry).expect("the state is intact");
        let ops = overlay.into_batch(&[]).ops().to_vec();
        for op in &ops {
            match op {
                WriteOp::Put { key, value } => drop(self.rows.insert(key.clone(), value.clone())),
                WriteOp::Delete { key } => drop(self.rows.remove(key)),
                WriteOp::DeleteRange { .. } => panic!("an overlay has no range deletions"),
            }
        }
        (outcome, ops)
    }

    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        Outcome::from_versioned(&self.apply_bytes(&command.to_versioned()).0).expect("our own bytes")
    }

    pub(super) fn ask(&self, query: &Query) -> Answer {
        let answer = crate::answer(self, query).expect("the state is intact");
        assert_eq!(Answer::from_versioned(&answer.to_versioned()), Ok(answer.clone()));
        answer
    }
}

pub(super) fn shelf() -> Shelf {
    Shelf { bucket: BucketId::from_u128(0xb0), index_shard: 2 }
}

pub(super) fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).expect("a legal key")
}

/// Transaction `n`, whose versions have salt `n` too.
pub(super) fn txn(n: u64) -> TxnId {
    TxnId::from_u128(u128::from(n) << 64 | u128::from(n))
}

pub(super) fn chunk_id(n: u64) -> ChunkId {
    ChunkId::from_u128(u128::from(n))
}

pub(super) fn disk(n: u64) -> DiskId {
    DiskId::from_u128(u128::from(n))
}

pub(super) fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A chunk coded 2+2; disk 0 stands for a missing shard.
pub(super) fn chunk(id: u64, bytes: u32, disks: [u64; 4]) -> ChunkEntry {
    ChunkEntry {
        chunk: chunk_id(id),
        bytes,
        profile: "2+2".parse().expect("a legal profile"),
        hash: [7; 32],
        shards: disks.into_iter().map(|n| (n > 0).then(|| disk(n))).collect(),
    }
}

/// The record of a plain PUT of `data` by `writer`.
pub(super) fn record(writer: TxnId, etag: &str, data: Option<&Data>) -> ObjectRecord {
    let bytes = data.map_or(0, Data::bytes);
    ObjectRecord {
        bytes,
        etag: etag.to_owned(),
        attributes: ObjectAttributes::default(),
        checksum: None,
        data: data.iter().map(|_| DataRef { txn: writer, bytes }).collect(),
        parts: Vec::new(),
    }
}

pub(super) fn command(n: u64, millis: u64, change: Change) -> Command {
    Command { txn: txn(n), time: time(millis), change }
}
