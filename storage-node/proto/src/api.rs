//! The traits a storage node implements. Over gRPC ([`crate::remote`]) or in the same process, callers see no difference.
//!
//! Every call may be cancelled by dropping it. A dropped write may still happen: its outcome is unknown, its shards are
//! orphans until the scrub fences their transaction (I5).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use placement_types::{Boot, ByteRange, ChunkId, DiskId, GroupId, NodeId, Profile, ShardId, Slot, Term, TxnId};

use crate::command::{Command, Outcome};
use crate::damage::{ChunkVerdict, DamageReport, Held};
use crate::object::ChunkEntry;
use crate::query::{Answer, Query};
use crate::upkeep::{ScrubReport, UpkeepReport};

/// Bytes in order; after an error there is nothing more.
pub type ByteStream<E> = BoxStream<'static, Result<Bytes, E>>;

/// What a caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Never,
    SameNode,
    OtherNode,
    /// Fetch a newer cluster map first.
    RefreshMap,
}

/// A storage node.
pub trait NodeApi: MetaApi + ChunkApi + ShardApi + UpkeepApi {}

impl<T: MetaApi + ChunkApi + ShardApi + UpkeepApi> NodeApi for T {}

/// Finds nodes: in the same process when they are there, else over the network.
pub trait Nodes: Send + Sync {
    /// `None` when the cluster map knows no such node.
    fn node(&self, id: NodeId) -> Option<Arc<dyn NodeApi>>;
}

/// The metadata groups a node is a replica of.
#[async_trait]
pub trait MetaApi: Send + Sync {
    /// Proposes a command and waits until it is applied here, on the leader.
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError>;

    /// Answers after proof of leadership in the current term.
    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    #[error("this node does not lead group {group}")]
    NotLeader { group: GroupId, leader: Option<NodeId> },
    #[error("this node holds no replica of group {group}")]
    NoSuchGroup { group: GroupId },
    /// It certainly did not and will not happen.
    #[error("group {group} cannot be served now: {why}")]
    Unavailable { group: GroupId, why: String },
    /// It may have happened, or happen yet. Send the same transaction again to learn which.
    #[error("the outcome in group {group} is unknown: {why}")]
    Unknown { group: GroupId, why: String },
    /// The peer sent what this build cannot read.
    #[error("bad message: {why}")]
    BadMessage { why: String },
}

impl MetaError {
    pub fn retry(&self) -> Retry {
        match self {
            MetaError::NotLeader { .. } | MetaError::Unavailable { .. } | MetaError::Unknown { .. } => Retry::OtherNode,
            MetaError::NoSuchGroup { .. } => Retry::RefreshMap,
            MetaError::BadMessage { .. } => Retry::Never,
        }
    }
}

/// Who wrote a shard, kept with it so that a scrub can ask its metadata group whether anything refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub txn: TxnId,
    pub slot: Slot,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteChunk {
    pub chunk: ChunkId,
    pub owner: Owner,
    pub profile: Profile,
    /// When known; at most [`placement_types::CHUNK_BYTES_MAX`].
    pub bytes: Option<u32>,
}

/// Where a shard goes, and under whose transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub disk: DiskId,
    pub owner: Owner,
}

/// Shards that a chunk lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreShards {
    /// The chunk, with the shards to read it from.
    pub source: ChunkEntry,
    /// By slot; `None` where no shard is to be written.
    pub targets: Vec<Option<Target>>,
}

/// Reads and writes chunks: the coordinator's face.
#[async_trait]
pub trait ChunkApi: Send + Sync {
    /// Codes the body stripe by stripe onto disks of the ring row (around those that are down) and returns once at least
    /// `profile.write_quorum()` shards, all k+m when their disks are up, are fsynced. The entry lists exactly the
    /// acknowledged disks. On an error nothing refers to what was written, and it is deleted as far as can be.
    async fn write_chunk(&self, request: WriteChunk, body: ByteStream<ChunkError>) -> Result<ChunkEntry, ChunkError>;

    /// Streams a range of a chunk's bytes, each unit verified against its checksum and rebuilt from parity where it must.
    /// Exactly `range.len()` bytes come, or the stream ends with an error.
    async fn read_chunk(&self, entry: ChunkEntry, range: ByteRange) -> Result<ByteStream<ChunkError>, ChunkError>;

    /// Reads a chunk, codes it again and writes the shards that it lacks. Returns, by slot, exactly the disks that acknowledged,
    /// of which there is at least one; or `None` when this node does not lend a hand now, having clients to serve or enough of
    /// such work: it is then to be done elsewhere. What was written stays, whether somebody comes to refer to it or not.
    async fn restore_shards(&self, request: RestoreShards) -> Result<Option<Vec<Option<DiskId>>>, ChunkError>;

    /// Reads every shard of a chunk, not only as many as a reader needs, and checks each against the others and all of them
    /// against the entry.
    async fn verify_chunk(&self, entry: ChunkEntry) -> Result<ChunkVerdict, ChunkError>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk {chunk}: only {acked} of {quorum} needed shards could be written: {why}")]
    NoQuorum { chunk: ChunkId, acked: usize, quorum: usize, why: String },
    #[error("chunk {chunk}: only {readable} of {needed} needed shards can be read: {why}")]
    Unreadable { chunk: ChunkId, readable: usize, needed: usize, why: String },
    #[error("chunk {chunk} is longer than a chunk may be, or than announced")]
    WrongLength { chunk: ChunkId },
    #[error("no disk has room")]
    Full,
    /// The body's producer failed; nothing was kept.
    #[error("the body ended early: {why}")]
    BodyFailed { why: String },
    #[error("node unreachable: {why}")]
    Unreachable { why: String },
    #[error("bad message: {why}")]
    BadMessage { why: String },
}

impl ChunkError {
    pub fn retry(&self) -> Retry {
        match self {
            ChunkError::Unreachable { .. } | ChunkError::NoQuorum { .. } => Retry::OtherNode,
            ChunkError::Unreadable { .. } => Retry::RefreshMap,
            ChunkError::WrongLength { .. } | ChunkError::Full | ChunkError::BodyFailed { .. } | ChunkError::BadMessage { .. } => {
                Retry::Never
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteShard {
    pub disk: DiskId,
    pub shard: ShardId,
    pub owner: Owner,
    pub profile: Profile,
}

/// Reads and writes shards on the disks of one node.
#[async_trait]
pub trait ShardApi: Send + Sync {
    /// Appends the units in stripe order and returns once all of them are fsynced. Repeating it with the same units under the
    /// same owner is fine.
    async fn write_shard(&self, request: WriteShard, units: ByteStream<ShardError>) -> Result<(), ShardError>;

    /// Streams `count` units from `first`, each verified before it is sent; one item per unit.
    async fn read_units(
        &self,
        disk: DiskId,
        shard: ShardId,
        first: u32,
        count: u32,
    ) -> Result<ByteStream<ShardError>, ShardError>;

    /// Deletes shards durably; absent ones are fine.
    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError>;

    /// What the disk has of each of these shards, as far as it knows without reading them; in the same order.
    async fn check_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<Vec<Held>, ShardError>;

    /// How the node's disks are.
    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError>;
}

/// Tells how the data is.
#[async_trait]
pub trait UpkeepApi: Send + Sync {
    /// What this node found out about the groups it leads, and what it does about it.
    async fn upkeep(&self) -> Result<UpkeepReport, ShardError>;

    /// Takes a hint about shards that the groups this node leads may have to repair.
    async fn report_damage(&self, report: DamageReport) -> Result<(), ShardError>;
}

/// A disk as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskReport {
    pub disk: DiskId,
    pub path: String,
    pub health: DiskHealth,
    pub total_bytes: u64,
    pub available_bytes: u64,
    /// Bytes of live shards.
    pub shard_bytes: u64,
    pub shards: u64,
    /// Those of them that were found bad and are not repaired yet.
    pub quarantined: u64,
    pub scrub: ScrubReport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskHealth {
    Good,
    /// Takes no more shards; reads and deletes work.
    Full,
    /// An fsync, write or identity check failed; it takes nothing until the process restarts (I14).
    Dead,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    #[error("shard {shard} is not on disk {disk}")]
    NotFound { disk: DiskId, shard: ShardId },
    #[error("shard {shard} on disk {disk} fails its checksum at unit {unit}")]
    Corrupt { disk: DiskId, shard: ShardId, unit: u32 },
    #[error("disk {disk} is not on this node")]
    NoSuchDisk { disk: DiskId },
    #[error("disk {disk} is full")]
    Full { disk: DiskId },
    #[error("disk {disk} is dead: {why}")]
    Dead { disk: DiskId, why: String },
    #[error("shard {shard} exists with other content on disk {disk}")]
    Exists { disk: DiskId, shard: ShardId },
    #[error("the units ended early: {why}")]
    BodyFailed { why: String },
    #[error("node unreachable: {why}")]
    Unreachable { why: String },
    #[error("bad message: {why}")]
    BadMessage { why: String },
}

impl ShardError {
    pub fn retry(&self) -> Retry {
        match self {
            ShardError::NotFound { .. } | ShardError::NoSuchDisk { .. } => Retry::RefreshMap,
            ShardError::Corrupt { .. } | ShardError::Full { .. } | ShardError::Dead { .. } | ShardError::Unreachable { .. } => {
                Retry::OtherNode
            }
            ShardError::Exists { .. } | ShardError::BodyFailed { .. } | ShardError::BadMessage { .. } => Retry::Never,
        }
    }
}

/// Which process sends Raft messages: of two that have one node's directory, only one is the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftSender {
    pub node: NodeId,
    pub boot: Boot,
}

/// Takes Raft messages for the consensus driver. Best effort: the protocol repeats what matters.
#[async_trait]
pub trait RaftApi: Send + Sync {
    /// Answers [`SUPERSEDED`] when the sender is not its node any more, and does not listen then.
    async fn raft(&self, sender: RaftSender, messages: Vec<Bytes>) -> Result<(), tonic::Status>;
}

/// Nothing else is answered with this code.
pub const SUPERSEDED: tonic::Code = tonic::Code::FailedPrecondition;

/// A replica's view of a group, for status pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    pub group: GroupId,
    pub leader: Option<NodeId>,
    pub term: Term,
    pub applied: u64,
}
