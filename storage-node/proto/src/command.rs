//! What a metadata group can be asked to change. Each S3 mutation is one command, hence one log entry (I4).
//!
//! A command carries everything its outcome depends on (time, ids, etags), so that applying it is deterministic (I8). Its
//! transaction id makes it safe to send again: the group answers a repeated transaction with the first outcome (I9).

use placement_types::{BucketId, ChunkId, DiskId, ObjectKey, Slot, Timestamp, TxnId, UploadId};

use crate::object::{Checksum, ChunkEntry, Data, ObjectAttributes, ObjectRecord, Upload, VersionId, VersionSelector, Versioning};

/// A change to the keys of one index shard of one bucket, or to a group's own queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub txn: TxnId,
    /// When the proposer admitted it.
    pub time: Timestamp,
    pub change: Change,
}

/// An index shard of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shelf {
    pub bucket: BucketId,
    pub index_shard: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes a version. `record.data` has one entry naming the command's `txn` (none for zero bytes), whose bytes are `data`.
    Put {
        shelf: Shelf,
        key: ObjectKey,
        versioning: Versioning,
        condition: WriteCondition,
        record: ObjectRecord,
        data: Option<Data>,
    },
    /// Deletes a version, or (with `Current`) does what DELETE without a version id means under `versioning`.
    Delete {
        shelf: Shelf,
        key: ObjectKey,
        versioning: Versioning,
        condition: WriteCondition,
        selector: VersionSelector,
    },
    CreateUpload {
        shelf: Shelf,
        key: ObjectKey,
        upload: Upload,
    },
    /// Stores or replaces a part; `data`'s record is filed under the command's `txn`.
    PutPart {
        shelf: Shelf,
        key: ObjectKey,
        upload: UploadId,
        number: u16,
        md5: [u8; 16],
        checksum: Option<Checksum>,
        data: Option<Data>,
    },
    /// Makes a version of the listed parts. The proposer has validated the list against the parts it read; the group only
    /// commits if each part is still the one named (`DataRef::txn`), else answers [`Outcome::PartsChanged`].
    CompleteUpload {
        shelf: Shelf,
        key: ObjectKey,
        upload: UploadId,
        versioning: Versioning,
        condition: WriteCondition,
        /// Complete but for `attributes`, which are those of the upload.
        record: ObjectRecord,
    },
    AbortUpload {
        shelf: Shelf,
        key: ObjectKey,
        upload: UploadId,
    },
    /// Replaces tags and metadata-like attributes of an existing version in place. `written_by` is [`Version::txn`] of the
    /// version the proposer read: when another PUT replaced it since (which, for the null version, keeps its id), the group
    /// answers [`Outcome::PreconditionFailed`] and the proposer reads again, so that attributes never mix (K3).
    ///
    /// [`Version::txn`]: crate::object::Version::txn
    SetAttributes {
        shelf: Shelf,
        key: ObjectKey,
        selector: VersionSelector,
        written_by: TxnId,
        attributes: ObjectAttributes,
    },
    /// Refuses every later request of the shelf if no version is in it: the per-group step of DeleteBucket. Uploads in progress
    /// do not stop it and are kept, because the fence may be taken back.
    FenceShelf {
        shelf: Shelf,
    },
    /// Takes a fence back: DeleteBucket was refused elsewhere.
    UnfenceShelf {
        shelf: Shelf,
    },
    /// The bucket of a fenced shelf is gone for good: aborts its uploads. Answers [`Outcome::NotEmpty`] while some are left
    /// (send another one, in a new transaction), [`Outcome::Done`] at the end.
    PurgeShelf {
        shelf: Shelf,
    },
    /// From here on a commit by any of these transactions is refused (I5). Followed by a `Referenced` query, it lets a scrub
    /// delete orphans.
    AbortTxns {
        txns: Vec<TxnId>,
    },
    /// The shards of these chunks are gone from every disk (or the disk is): drop from the gc queue what they had there from
    /// before `before`, which is that of the [`Garbage`](crate::query::Query::Garbage) query that told of them.
    FinishGc {
        chunks: Vec<ChunkId>,
        before: Timestamp,
    },
    /// The same for single rows of the queue, by chunk and time: for garbage that is dated ahead, beside which the chunk may have
    /// some that is younger.
    FinishGcRows {
        rows: Vec<(ChunkId, Timestamp)>,
    },
    /// Moves a slot of a chunk to another disk by compare-and-swap (I6): only if the data record of `owner` still has `from`.
    /// The shard on `to` must have been written under the command's `txn`, one transaction per shard moved, so that a scrub
    /// can tell a shard in use from one of a failed move; the shard on `from` becomes garbage. One for an empty slot must have been
    /// written under `owner`: it is the shard that the first write owes.
    /// [`Outcome::Moved`] means that the slot is not what the mover read; [`Outcome::PreconditionFailed`] that `to` may not take
    /// it: it has another shard of the chunk, or may still lose this one to a deletion under way from when the slot left it;
    /// or that giving the slot up would leave too few shards to rebuild the chunk from.
    MoveShard {
        shelf: Shelf,
        key: ObjectKey,
        owner: TxnId,
        chunk: ChunkId,
        index: u8,
        from: Option<DiskId>,
        to: Option<DiskId>,
    },
    /// Puts another coding of the same bytes in the place of a chunk, by compare-and-swap: only if the data record of `owner`
    /// still has exactly the entry `from`, else the answer is [`Outcome::Moved`]. `to` has a chunk id of its own, all of its
    /// shards, and the length and hash of `from`; every shard of it was written under the command's `txn`, so that a scrub can
    /// tell a chunk in use from one of a re-coding that failed. The shards of `from` become garbage.
    Recode {
        shelf: Shelf,
        key: ObjectKey,
        owner: TxnId,
        from: ChunkEntry,
        to: ChunkEntry,
    },
    /// Forgets transaction outcomes and fences older than this; commands older than it are refused from here on. Answers
    /// [`Outcome::NotEmpty`] when there is more to forget than one entry should: send another.
    Forget {
        before: Timestamp,
    },
    /// Does nothing: a new leader proposes one to learn its commit index.
    Nothing {},
}

/// What must hold of the current version for a write to happen; checked in the same step that writes.
///
/// Sources: AWS "conditional writes" and "conditional deletes" pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WriteCondition {
    #[default]
    None,
    /// `If-None-Match: *`: no current version, or a delete marker.
    Absent,
    /// `If-Match: "etag"`, without quotes. An absent key fails with [`Outcome::NoSuchKey`].
    ETag { etag: String },
    /// `If-Match: *`: any current version that is not a delete marker.
    Present,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A version was written.
    Written {
        version: VersionId,
        modified: Timestamp,
    },
    /// What a delete removed or made. `removed` is `None` when nothing was there, or only a marker was added.
    Deleted {
        removed: Option<VersionId>,
        removed_marker: bool,
        marker: Option<VersionId>,
    },
    UploadCreated,
    PartWritten,
    UploadAborted,
    Done,
    PreconditionFailed,
    NoSuchKey,
    NoSuchVersion,
    NoSuchUpload,
    /// The version is a delete marker, which has no attributes.
    IsDeleteMarker,
    /// A part of the list was replaced since the proposer read it: read the parts again.
    PartsChanged,
    /// The shelf is fenced: its bucket is being, or was, deleted.
    BucketGone,
    /// FenceShelf found something (keys, old versions, delete markers), or PurgeShelf or Forget left some for another one.
    NotEmpty,
    /// The transaction was fenced by [`Change::AbortTxns`].
    TxnAborted,
    /// A MoveShard found another disk in the slot, or no such chunk; a Recode found the chunk changed, or gone.
    Moved,
    /// The entry could not be decoded, or breaks an invariant of its type. Nothing was changed.
    Malformed {
        why: String,
    },
}

/// A chunk whose shards nothing refers to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    pub entry: ChunkEntry,
    /// When it became garbage; its shards are kept a grace period for readers under way.
    pub since: Timestamp,
}

/// A chunk of a version or part, and where its entry is filed: what a [`Change::MoveShard`] or [`Change::Recode`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiledChunk {
    pub shelf: Shelf,
    pub key: ObjectKey,
    pub owner: TxnId,
    pub entry: ChunkEntry,
}

impl Shelf {
    /// The slot, and so the group, that owns the shelf.
    pub fn slot(self) -> Slot {
        crate::key::slot(self.bucket, self.index_shard)
    }
}
