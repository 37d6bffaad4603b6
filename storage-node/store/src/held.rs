//! What a disk has of a shard: asked of the index, or found out by reading all of it.

use placement_types::ShardId;

use crate::error::ReadError;
use crate::format::Entry;
use crate::limits::READ_ATTEMPTS_MAX;
use crate::log::Core;
use crate::read::verify_entry;

/// What a disk has of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// As far as is known without reading it.
    Whole,
    Missing,
    /// It failed a check and is in quarantine, or a segment file with some of it is gone.
    Damaged,
}

/// What reading all of a shard showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examined {
    pub shard: ShardId,
    pub held: Held,
    /// Of its units.
    pub bytes: u64,
    /// The damage was not known before.
    pub news: bool,
}

impl Core {
    /// Whether this copy of the shard is known to be bad.
    pub fn is_damaged(&self, shard: ShardId, entry: &Entry) -> bool {
        self.quarantine.contains(shard, entry.seal)
            || entry.extents().iter().any(|extent| !self.segments.exists(extent.at.segment))
    }
}

/// What the index says of each. Blocks; nothing is read from the segments.
pub(crate) fn held(core: &Core, shards: &[ShardId]) -> Result<Vec<Held>, ReadError> {
    let held = |shard: &ShardId| match core.index.get(*shard) {
        Ok(None) => Ok(Held::Missing),
        Ok(Some(entry)) if core.is_damaged(*shard, &entry) => Ok(Held::Damaged),
        Ok(Some(_)) => Ok(Held::Whole),
        Err(source) => {
            core.index_failed(&source);
            Err(ReadError::Index { disk: core.identity.disk, source })
        }
    };
    shards.iter().map(held).collect()
}

/// Reads a shard and its seal and puts it in quarantine when anything is wrong with it. A place that cannot be read counts as
/// wrong: the shard is then written again in another one (D18). Blocks.
pub(crate) fn examine(core: &Core, shard: ShardId) -> Result<Examined, ReadError> {
    let disk = core.identity.disk;
    let index_failed = |source| {
        core.index_failed(&source);
        ReadError::Index { disk, source }
    };
    for _ in 0..READ_ATTEMPTS_MAX {
        let Some(entry) = core.index.get(shard).map_err(index_failed)? else { break };
        let bytes = entry.bytes;
        if verify_entry(core, shard, &entry).is_ok() {
            return Ok(Examined { shard, held: Held::Whole, bytes, news: false });
        }
        // Only if it was this copy that was read all the time: a delete, repair or compaction frees the place under a reader.
        if core.index.get(shard).map_err(index_failed)?.is_some_and(|now| now.seal == entry.seal) {
            let news = core.quarantine.insert(&core.index, shard, entry.seal).map_err(index_failed)?;
            if news {
                tracing::warn!(%disk, %shard, "a shard fails its checks and is in quarantine until it is repaired");
            }
            return Ok(Examined { shard, held: Held::Damaged, bytes, news });
        }
    }
    Ok(Examined { shard, held: Held::Missing, bytes: 0, news: false })
}
