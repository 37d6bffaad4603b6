//! What nodes tell each other about shards that are not what manifests say they are.

use placement_types::{DiskId, ShardId};

/// What a disk has of a shard, as far as it knows without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Whole,
    Missing,
    /// It was found bad and is in quarantine, or a file with some of it is gone.
    Damaged,
}

/// Something about a disk that the leaders of metadata groups should look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageReport {
    /// These shards are missing or damaged.
    Shards { shards: Vec<ShardId> },
    /// Anything may be missing: the disk was just opened, or has lost a file.
    Disk { disk: DiskId },
}

/// How one shard of a chunk was found when all of it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardVerdict {
    Whole,
    /// The manifest names no disk yet; repair owes the shard.
    Owed,
    Missing,
    /// It fails a check, or is not what the others make of the chunk.
    Corrupt {
        why: String,
    },
    /// Nothing is known: its disk or node does not answer.
    Unknown {
        why: String,
    },
}

/// How a chunk was found when every shard of it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkVerdict {
    /// By slot.
    pub shards: Vec<ShardVerdict>,
    pub content: ContentVerdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentVerdict {
    /// Of the length and the hash that the manifest gives.
    Right,
    Wrong,
    /// Fewer than k units of a stripe are there and sound.
    Lost,
    /// They may be, on disks that do not answer.
    Unknown,
}
