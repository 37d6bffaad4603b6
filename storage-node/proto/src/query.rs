//! What a metadata group can be asked to tell. Queries are answered by the group's leader after a read barrier (I10).

use bytes::Bytes;
use placement_types::{ChunkId, DiskId, ObjectKey, ReplicaId, Timestamp, TxnId, UploadId};

use crate::command::{FiledChunk, Garbage, Shelf};
use crate::object::{Checksum, Data, Part, Upload, Version, VersionId, VersionSelector};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// One version, with its data record when it is inline (so that a small GET is one round trip).
    Version {
        shelf: Shelf,
        key: ObjectKey,
        selector: VersionSelector,
    },
    /// The data records of these transactions of a key, in the same order.
    Data {
        shelf: Shelf,
        key: ObjectKey,
        txns: Vec<TxnId>,
    },
    /// Current versions that are not delete markers, folded by the delimiter.
    ListObjects {
        shelf: Shelf,
        list: ListRange,
    },
    /// All versions and delete markers, newest first within a key, folded by the delimiter.
    ListVersions {
        shelf: Shelf,
        list: ListRange,
        version_marker: Option<VersionId>,
    },
    /// Uploads in progress, by key, then by initiation.
    ListUploads {
        shelf: Shelf,
        list: ListRange,
        upload_marker: Option<UploadId>,
    },
    Upload {
        shelf: Shelf,
        key: ObjectKey,
        upload: UploadId,
    },
    /// Parts with numbers above `after`.
    ListParts {
        shelf: Shelf,
        key: ObjectKey,
        upload: UploadId,
        after: u16,
        limit: u32,
    },
    /// Garbage older than `before`, oldest first, from after the given one on: so that chunks waiting for an absent disk do not
    /// hold up the rest. A page holds all garbage of its last time and chunk, and so may pass `limit` a little.
    Garbage {
        before: Timestamp,
        after: Option<(Timestamp, ChunkId)>,
        limit: u32,
    },
    /// Chunks that repair owes shards.
    Degraded {
        after: Option<ChunkId>,
        limit: u32,
    },
    /// The chunks that versions and parts of this group refer to, record by record, from after one record on. A page ends after
    /// the record with which it has `limit` chunks. `now` decides which departures still count.
    Survey {
        after: Option<RecordPlace>,
        limit: u32,
        now: Timestamp,
    },
    /// How many shards the manifests say these disks hold, among the chunks of about `limit` records after one.
    Holdings {
        disks: Vec<DiskId>,
        after: Option<RecordPlace>,
        limit: u32,
    },
    /// Which of these transactions own data that a version, a part or the gc queue refers to.
    Referenced {
        txns: Vec<TxnId>,
    },
    /// Whose agreement the group needs now: its voters, and in the middle of a change those before it too. Also of the system group.
    Members,
    /// What came of an upload that was completed, so that a repeated Complete can be answered (for about a week).
    CompletedUpload {
        shelf: Shelf,
        key: ObjectKey,
        upload: UploadId,
    },
}

/// A chunk as a survey tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedChunk {
    pub filed: FiledChunk,
    /// The transactions that shards belong to which were moved or repaired; the others belong to that of the record.
    pub movers: Vec<(u8, TxnId)>,
    /// Slots with disks that they left and may not return to yet: a deletion there may still be under way.
    pub departed: Vec<(u8, DiskId)>,
}

/// Where a data record is filed; surveys go through a group in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPlace {
    pub shelf: Shelf,
    pub key: ObjectKey,
    pub owner: TxnId,
}

/// A stretch of a listing, exactly as S3 pages it.
///
/// An item is a key or a common prefix; both count one towards `limit`. A common prefix is `prefix`, then everything up to
/// and including the first `delimiter` after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListRange {
    pub prefix: Bytes,
    /// Empty: no folding.
    pub delimiter: Bytes,
    /// Items must sort after this (empty: from the start). When it is itself a common prefix of this listing, everything
    /// under it is skipped. With a version or upload marker, the marker's own key is listed from just after the marker.
    pub after: Bytes,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Version {
        version: Version,
        inline: Option<Bytes>,
    },
    Data {
        records: Vec<Option<Data>>,
    },
    /// Here and in `Versions` a version comes without its `data` and `parts`, which can be long.
    Objects {
        items: Vec<ListItem<Version>>,
        more: bool,
    },
    /// `bool`: whether the version is its key's latest.
    Versions {
        items: Vec<ListItem<(Version, bool)>>,
        more: bool,
    },
    Uploads {
        items: Vec<ListItem<Upload>>,
        more: bool,
    },
    Upload {
        upload: Upload,
    },
    Parts {
        parts: Vec<Part>,
        more: bool,
    },
    Garbage {
        garbage: Vec<Garbage>,
    },
    Degraded {
        chunks: Vec<FiledChunk>,
    },
    Referenced {
        txns: Vec<TxnId>,
    },
    Members {
        replicas: Vec<ReplicaId>,
    },
    /// `next`: where to go on; `None` at the end.
    Survey {
        chunks: Vec<SurveyedChunk>,
        next: Option<RecordPlace>,
    },
    Holdings {
        shards: u64,
        /// What the shards take on disk, headers aside.
        bytes: u64,
        next: Option<RecordPlace>,
    },
    /// `etag` is that of the list completed: another list under the same upload id is a [`Answer::NoSuchUpload`].
    CompletedUpload {
        version: VersionId,
        modified: Timestamp,
        etag: String,
        checksum: Option<Checksum>,
    },
    /// No such key, or its current version is a delete marker and `Current` was asked for: then the marker's id.
    NoSuchKey {
        marker: Option<VersionId>,
    },
    NoSuchVersion,
    NoSuchUpload,
    /// The shelf is fenced: its bucket is being, or was, deleted.
    BucketGone,
    /// The query could not be decoded, or asks beyond its limits.
    Malformed {
        why: String,
    },
}

/// A key with what it holds, or a common prefix. In a listing they are ordered together by their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem<T> {
    Entry { key: ObjectKey, value: T },
    Prefix { prefix: Bytes },
}

impl<T> ListItem<T> {
    /// What the item sorts by.
    pub fn sort_key(&self) -> &[u8] {
        match self {
            ListItem::Entry { key, .. } => key.as_bytes(),
            ListItem::Prefix { prefix } => prefix,
        }
    }
}
