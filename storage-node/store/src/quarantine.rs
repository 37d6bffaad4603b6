//! Shards that were found bad: remembered until they are written again or deleted.
//!
//! A quarantined shard does not count as held ([`Disk::held`](crate::Disk::held)), so that its slot is repaired, and writing
//! the same shard again replaces it, which is how it is repaired in place. It is not deleted: until the new copy is fsynced,
//! those of its units that pass their checks may be the last there are of a stripe, and every read checks them anyway.
//!
//! The list is kept with the index, and like it may be lost: then the next scrub finds the damage again.
//!
//! # Invariants
//! A row names the seal of the copy that is bad. A newer copy of the shard has another seal and is not in quarantine, whatever
//! order a verdict and the commit of that copy come in.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use placement_types::ShardId;
use storage_node_kv::KvError;

use crate::index::Index;
use crate::limits::QUARANTINE_MAX;
use crate::position::Position;

#[derive(Default)]
pub(crate) struct Quarantine {
    seals: Mutex<BTreeMap<ShardId, Position>>,
}

impl Quarantine {
    /// What the index remembers and still has.
    pub fn load(index: &Index) -> Result<Self, KvError> {
        let mut seals = BTreeMap::new();
        for (shard, seal) in index.quarantined(QUARANTINE_MAX)? {
            if index.get(shard)?.is_some_and(|entry| entry.seal == seal) {
                seals.insert(shard, seal);
            } else {
                index.lift_quarantine(shard)?;
            }
        }
        Ok(Self { seals: Mutex::new(seals) })
    }

    pub fn contains(&self, shard: ShardId, seal: Position) -> bool {
        self.seals.lock().get(&shard) == Some(&seal)
    }

    pub fn len(&self) -> usize {
        self.seals.lock().len()
    }

    /// Whether it is news. Beyond the maximum nothing more is remembered: such a disk has to be replaced.
    pub fn insert(&self, index: &Index, shard: ShardId, seal: Position) -> Result<bool, KvError> {
        {
            let mut seals = self.seals.lock();
            if seals.get(&shard) == Some(&seal) || seals.len() >= QUARANTINE_MAX {
                return Ok(false);
            }
            seals.insert(shard, seal);
        }
        index.quarantine(shard, seal)?;
        Ok(true)
    }

    /// The shard was written anew, or deleted.
    pub fn lift(&self, index: &Index, shard: ShardId) -> Result<(), KvError> {
        match self.seals.lock().remove(&shard) {
            Some(_) => index.lift_quarantine(shard),
            None => Ok(()),
        }
    }

    /// The shards after `after`, at most `limit`.
    pub fn page(&self, after: Option<ShardId>, limit: usize) -> Vec<ShardId> {
        let seals = self.seals.lock();
        seals.keys().filter(|shard| after.is_none_or(|after| **shard > after)).take(limit).copied().collect()
    }
}
