//! The points on the way of an operation at which a process may die and everything still has to hold.
//!
//! The product only names them, by [`Env::pass`](crate::Env::pass): nobody watches in production, and nothing happens there. A
//! simulation watches, and lets the process die exactly here. The list is what its matrix of crashes is held against.
//! (`tests/sim/src/matrix.rs`): a point that is added here must be in the matrix, and must be passed.

use std::fmt;

use crate::env::BoxFuture;

macro_rules! waypoints {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A point between two steps of an operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Waypoint {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Waypoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

waypoints! {
    /// PutObject: allowed, and nothing of the body was read.
    PutBegun,
    /// PutObject: the body is verified and all of it durable, or in memory if it is small; nothing was proposed.
    PutStaged,
    /// PutObject: committed, and the client was not told.
    PutCommitted,
    /// UploadPart: the upload is there, and nothing of the body was read.
    PartBegun,
    /// UploadPart: the body is verified and durable, nothing was proposed.
    PartStaged,
    /// UploadPart: committed, and the client was not told.
    PartCommitted,
    /// CompleteMultipartUpload: the list is checked against the parts, nothing was proposed.
    CompleteAssembled,
    /// CompleteMultipartUpload: committed, and the client was not told.
    CompleteCommitted,
    /// AbortMultipartUpload: nothing was proposed.
    AbortBegun,
    /// AbortMultipartUpload: committed, and the client was not told.
    AbortCommitted,
    /// DeleteObject: nothing was proposed.
    DeleteBegun,
    /// DeleteObject: committed, and the client was not told.
    DeleteCommitted,
    /// A coordinator has given a stripe to the writers of its shards.
    StripeSent,
    /// All units of a chunk were sent, none of its shards was ended.
    ChunkSent,
    /// One shard of a chunk is acknowledged, others may not be.
    ShardAcknowledged,
    /// As many shards of a chunk are durable as will be, and nobody was told.
    ChunkDurable,
    /// A disk's node has taken a unit of a shard.
    UnitAppended,
    /// A shard is durable on its disk, and nobody was told.
    ShardDurable,
    /// A leader has got a command, nothing was proposed.
    CommandReceived,
    /// A command is committed and applied, and nobody was told.
    CommandApplied,
    /// Garbage past its grace was listed, nothing of it was deleted.
    GarbageListed,
    /// The garbage on one disk is deleted, that on others may not be.
    GarbageLeftDisk,
    /// All shards of garbage are deleted, its rows are still there.
    GarbageDeleted,
    /// The rows of garbage are gone too.
    GarbageFinished,
    /// Shards are suspected to be orphans, their transactions are not fenced yet.
    OrphansSuspected,
    /// The transactions of orphans are fenced, their shards are still there.
    OrphansFenced,
    /// Orphans are deleted.
    OrphansDeleted,
    /// Repair knows which shards a chunk lacks, and has read nothing.
    RepairBegun,
    /// Repair has read and rebuilt a piece of the chunk, and written none of it.
    RepairDecoded,
    /// What a chunk lacked is durable, and its manifest does not say so.
    RepairWritten,
    /// The manifest names a repaired shard.
    RepairSwapped,
    /// A shard is to be moved, nothing was read.
    MoveBegun,
    /// A unit of a shard to be moved is read and verified, and was not written.
    MoveRead,
    /// A shard is durable where it is to be, and its manifest does not say so.
    MoveCopied,
    /// The manifest names a moved shard's new place; the old one is garbage.
    MoveSwapped,
    /// A chunk is to be coded anew, nothing was read.
    RecodeBegun,
    /// All shards of the new coding are durable, the manifest names the old ones.
    RecodeWritten,
    /// The manifest names the new coding; the old one is garbage.
    RecodeSwapped,
}

impl fmt::Display for Waypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Whoever wants to know which points are passed.
pub trait Watcher: Send + Sync {
    /// The operation goes on when the future ends; if it never does, nothing after the point happens.
    fn pass(&self, waypoint: Waypoint) -> BoxFuture<'static, ()>;
}
