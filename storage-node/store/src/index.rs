//! The index of a disk: shard id -> where its units are.
//!
//! It is derived from the segments and disposable: what it lost in a crash is replayed, and one that cannot be read is wiped and
//! rebuilt (`recovery.rs`). So its writes are not synced; [`Index::checkpoint`] makes a prefix of the log's effects durable.

use std::sync::Arc;

use placement_types::codec::{Decode, Encode};
use placement_types::{DiskId, Profile, ShardId, Slot, Timestamp, TxnId};
use storage_node_kv::{Durability, Kv, KvError, Step, WriteBatch};

use crate::format::{Checkpoint, Entry};
use crate::position::Position;
use crate::scrub::ScrubState;

const SHARD_PREFIX: u8 = b's';
const SHARDS_END: &[u8] = &[SHARD_PREFIX + 1];
const CHECKPOINT_KEY: &[u8] = b"mcheckpoint";
const SCRUB_KEY: &[u8] = b"mscrub";
const QUARANTINE_PREFIX: u8 = b'q';
const QUARANTINE_END: &[u8] = &[QUARANTINE_PREFIX + 1];

/// A shard as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSummary {
    pub shard: ShardId,
    pub txn: TxnId,
    pub slot: Slot,
    pub profile: Profile,
    pub bytes: u64,
    pub units: u32,
    pub written_at: Timestamp,
}

impl ShardSummary {
    pub(crate) fn of(shard: ShardId, entry: &Entry) -> Self {
        Self {
            shard,
            txn: entry.owner.txn,
            slot: entry.owner.slot,
            profile: entry.profile,
            bytes: entry.bytes,
            units: u32::try_from(entry.units.len()).expect("at most UNITS_MAX"),
            written_at: entry.written_at,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Index {
    kv: Arc<dyn Kv>,
    disk: DiskId,
}

impl Index {
    pub fn new(kv: Arc<dyn Kv>, disk: DiskId) -> Self {
        Self { kv, disk }
    }

    /// An undecodable entry is `Corrupt`, never "not found" (D8).
    pub fn get(&self, shard: ShardId) -> Result<Option<Entry>, KvError> {
        self.kv.get(&key_of(SHARD_PREFIX, shard))?.map(|value| decode(&value)).transpose()
    }

    /// Applies changes at once; a crash may lose them, the log brings them back.
    pub fn write(&self, changes: &[(ShardId, Option<&Entry>)]) -> Result<(), KvError> {
        let mut batch = WriteBatch::new();
        for (shard, entry) in changes {
            match entry {
                Some(entry) => batch.put(key_of(SHARD_PREFIX, *shard), entry.to_encoded()),
                None => batch.delete(key_of(SHARD_PREFIX, *shard)),
            }
        }
        self.kv.write(&batch, Durability::Buffered)
    }

    /// Visits the shards after `after` in order, at most `limit`.
    pub fn page(&self, after: Option<ShardId>, limit: usize) -> Result<Vec<(ShardId, Entry)>, KvError> {
        let mut from = after.map_or_else(|| vec![SHARD_PREFIX], |after| key_of(SHARD_PREFIX, after));
        if after.is_some() {
            from.push(0);
        }
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.scan(&from, &mut |shard, entry| {
            found.push((shard, entry));
            if found.len() < limit { Step::Next } else { Step::Stop }
        })?;
        Ok(found)
    }

    /// Visits every shard.
    pub fn for_each(&self, visit: &mut dyn FnMut(ShardId, &Entry)) -> Result<(), KvError> {
        self.scan(&[SHARD_PREFIX], &mut |shard, entry| {
            visit(shard, &entry);
            Step::Next
        })
    }

    /// Visits the shards from a key on in order, until one does not decode: that is `Corrupt`, as in [`Index::get`].
    fn scan(&self, from: &[u8], visit: &mut dyn FnMut(ShardId, Entry) -> Step) -> Result<(), KvError> {
        let mut broken = None;
        self.kv.scan(from, SHARDS_END, &mut |key, value| match decode_pair(key, value) {
            Ok((shard, entry)) => visit(shard, entry),
            Err(error) => {
                broken = Some(error);
                Step::Stop
            }
        })?;
        broken.map_or(Ok(()), Err)
    }

    /// Up to where the log is durably in the index; `None` for a new index. Another disk's index is a corrupt one.
    pub fn load_checkpoint(&self) -> Result<Option<Position>, KvError> {
        let Some(value) = self.kv.get(CHECKPOINT_KEY)? else { return Ok(None) };
        let checkpoint: Checkpoint = decode(&value)?;
        if checkpoint.disk != self.disk {
            return Err(KvError::Corrupt { detail: format!("it is the index of disk {}", checkpoint.disk) });
        }
        Ok(Some(checkpoint.upto))
    }

    /// Makes durable everything written so far, and that it reaches `upto`. The mark goes in before the flush, so both are
    /// durable together: a crash between leaves the older mark and a longer replay.
    pub fn checkpoint(&self, upto: Position) -> Result<(), KvError> {
        let mut batch = WriteBatch::new();
        batch.put(CHECKPOINT_KEY, Checkpoint { disk: self.disk, upto }.to_encoded());
        self.kv.write(&batch, Durability::Buffered)?;
        self.kv.flush()
    }

    /// Forgets everything: the start of a rebuild.
    pub fn clear(&self) -> Result<(), KvError> {
        let mut batch = WriteBatch::new();
        batch.delete(CHECKPOINT_KEY);
        batch.delete_range(vec![SHARD_PREFIX], SHARDS_END.to_vec());
        batch.delete_range(vec![QUARANTINE_PREFIX], QUARANTINE_END.to_vec());
        self.kv.write(&batch, Durability::Buffered)
    }

    /// Remembers that the copy of a shard with this seal is bad.
    pub fn quarantine(&self, shard: ShardId, seal: Position) -> Result<(), KvError> {
        let mut batch = WriteBatch::new();
        batch.put(key_of(QUARANTINE_PREFIX, shard), seal.to_encoded());
        self.kv.write(&batch, Durability::Buffered)
    }

    pub fn lift_quarantine(&self, shard: ShardId) -> Result<(), KvError> {
        let mut batch = WriteBatch::new();
        batch.delete(key_of(QUARANTINE_PREFIX, shard));
        self.kv.write(&batch, Durability::Buffered)
    }

    /// The copies known to be bad, at most `limit`.
    pub fn quarantined(&self, limit: usize) -> Result<Vec<(ShardId, Position)>, KvError> {
        let (mut found, mut broken) = (Vec::new(), None);
        self.kv.scan(&[QUARANTINE_PREFIX], QUARANTINE_END, &mut |key, value| match decode_pair(key, value) {
            Ok(pair) if found.len() < limit => {
                found.push(pair);
                Step::Next
            }
            Ok(_) => Step::Stop,
            Err(error) => {
                broken = Some(error);
                Step::Stop
            }
        })?;
        broken.map_or(Ok(found), Err)
    }

    /// How far the scrub is. What does not decode is from another build: the cycle then begins anew.
    pub fn load_scrub(&self) -> Result<ScrubState, KvError> {
        let value = self.kv.get(SCRUB_KEY)?;
        Ok(value.and_then(|value| ScrubState::from_encoded(&value).ok()).unwrap_or_default())
    }

    pub fn save_scrub(&self, state: &ScrubState) -> Result<(), KvError> {
        let mut batch = WriteBatch::new();
        batch.put(SCRUB_KEY, state.to_encoded());
        self.kv.write(&batch, Durability::Buffered)
    }
}

fn key_of(prefix: u8, shard: ShardId) -> Vec<u8> {
    let mut key = Vec::with_capacity(19);
    key.push(prefix);
    key.extend(shard.to_bytes());
    key
}

fn decode<T: Decode>(value: &[u8]) -> Result<T, KvError> {
    T::from_encoded(value).map_err(|error| KvError::Corrupt { detail: error.to_string() })
}

fn decode_pair<T: Decode>(key: &[u8], value: &[u8]) -> Result<(ShardId, T), KvError> {
    let id = key.get(1..).and_then(|id| <[u8; 17]>::try_from(id).ok());
    let id = id.ok_or_else(|| KvError::Corrupt { detail: "a key is not a shard id".into() })?;
    Ok((ShardId::from_bytes(id), decode(value)?))
}
