//! What can go wrong, one enum per family; a variant exists because a caller acts on it.

use std::io;
use std::path::PathBuf;

use placement_types::{ClusterId, DiskId, NodeId, ShardId};
use storage_node_kv::KvError;

/// Why a directory cannot be formatted or opened as a disk. Every message names the path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} does not exist; is the disk mounted?")]
    Missing { path: PathBuf },
    #[error("{path} is not a directory")]
    NotADirectory { path: PathBuf },
    #[error("{path} is empty: it has no disk.id, so it is a new disk or the disk is not mounted there")]
    Unformatted { path: PathBuf },
    #[error("{path} has no disk.id but holds {found:?}: refusing to put a disk over foreign data")]
    ForeignData { path: PathBuf, found: String },
    #[error("{path} already is disk {disk}")]
    AlreadyFormatted { path: PathBuf, disk: DiskId },
    #[error("{path} is a disk of cluster {found}, this is cluster {expected}")]
    OtherCluster { path: PathBuf, found: ClusterId, expected: ClusterId },
    #[error("{path} is a disk of node {found}, this is node {expected}")]
    OtherNode { path: PathBuf, found: NodeId, expected: NodeId },
    #[error("{path} is disk {found}, but disk {expected} should be mounted there")]
    OtherDisk { path: PathBuf, found: DiskId, expected: DiskId },
    #[error("{path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("{path} cannot be written")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {why}")]
    CorruptIdentity { path: PathBuf, why: String },
    #[error("{path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the index in {path} can be neither read nor rebuilt")]
    Index { path: PathBuf, source: KvError },
}

/// Why a write or delete was not done. Unless the variant says otherwise it certainly did not happen; after `Dead` and
/// `Closed` it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("disk {disk} is dead: {why}")]
    Dead { disk: DiskId, why: String },
    #[error("disk {disk} is full")]
    Full { disk: DiskId },
    #[error("disk {disk} was closed")]
    Closed { disk: DiskId },
    #[error("shard {shard} exists with other content on disk {disk}")]
    AlreadyExists { disk: DiskId, shard: ShardId },
    #[error("a unit of shard {shard} has {bytes} bytes, more than a unit may have")]
    UnitTooLarge { shard: ShardId, bytes: usize },
    #[error("shard {shard} has more units than a shard may have")]
    TooManyUnits { shard: ShardId },
}

/// Why a shard could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("shard {shard} is not on disk {disk}")]
    NotFound { disk: DiskId, shard: ShardId },
    #[error("shard {shard} on disk {disk} has {units} units, not {unit}")]
    NoSuchUnit { disk: DiskId, shard: ShardId, unit: u32, units: u32 },
    #[error("shard {shard} on disk {disk} fails its checksum at unit {unit}")]
    Corrupt { disk: DiskId, shard: ShardId, unit: u32 },
    /// The units read well, but their list on disk does not: an index rebuild would lose the shard.
    #[error("the seal of shard {shard} on disk {disk} fails its checksum")]
    CorruptSeal { disk: DiskId, shard: ShardId },
    #[error("read {path}")]
    Io { disk: DiskId, path: PathBuf, source: io::Error },
    /// The disk is dead; opening it again rebuilds the index. Nothing follows about the shard.
    #[error("the index of disk {disk} cannot be read")]
    Index { disk: DiskId, source: KvError },
}

/// Out of space, quota, inodes or descriptors: conditions that pass, so the disk is full and not dead (D14, D17).
pub(crate) fn means_full(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
