//! Byte forms of the types of this crate, field by field in the order listed.
//!
//! Log entries, state rows and messages begin with [`VERSION`]; the types inside carry no version of their own.

use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{codec_enum, codec_struct, codec_versioned};

use crate::api::{
    ChunkError, DiskHealth, DiskReport, GroupReport, MetaError, Owner, RaftSender, RestoreShards, ShardError, Target, WriteChunk,
    WriteShard,
};
use crate::command::{Change, Command, FiledChunk, Garbage, Outcome, Shelf, WriteCondition};
use crate::damage::{ChunkVerdict, ContentVerdict, DamageReport, Held, ShardVerdict};
use crate::object::{
    Checksum, ChecksumAlgorithm, ChecksumKind, ChunkEntry, Data, DataRef, ObjectAttributes, ObjectRecord, Part, PartSummary,
    Upload, Version, VersionBody, VersionId, VersionSelector, Versioning,
};
use crate::query::{Answer, ListItem, ListRange, Query, RecordPlace, SurveyedChunk};
use crate::upkeep::{GroupSurvey, ScrubReport, ScrubTally, Tally, UpkeepReport, Work};

/// The newest version of the byte forms below; see [`Command::to_versioned`].
pub(crate) const VERSION: u16 = 1;

codec_struct!(RaftSender { node, boot });
codec_enum!(VersionId, "version id" { 0 => Null {}, 1 => Id { sequence, salt } });
codec_enum!(VersionSelector, "version selector" { 0 => Current {}, 1 => Exact { 0: id } });
codec_enum!(Versioning, "versioning" { 0 => Unversioned {}, 1 => Enabled {}, 2 => Suspended {} });
codec_struct!(Version { id, txn, modified, body });
codec_enum!(VersionBody, "version body" { 0 => DeleteMarker {}, 1 => Object { 0: record } });
codec_struct!(ObjectRecord { bytes, etag, attributes, checksum, data, parts });
codec_struct!(ObjectAttributes { headers, metadata, tags, storage_class });
codec_struct!(DataRef { txn, bytes });
codec_struct!(PartSummary { number, bytes, checksum });
codec_enum!(Data, "data record" { 0 => Inline { 0: bytes }, 1 => Chunks { 0: chunks } });
codec_struct!(ChunkEntry { chunk, bytes, profile, hash, shards });
codec_enum!(ChecksumAlgorithm, "checksum algorithm" { 1 => Crc32 {}, 2 => Crc32c {}, 3 => Crc64Nvme {}, 4 => Sha1 {}, 5 => Sha256 {} });
codec_enum!(ChecksumKind, "checksum kind" { 0 => FullObject {}, 1 => Composite {} });
codec_struct!(Checksum { algorithm, kind, value });
codec_struct!(Upload { id, initiated, attributes, checksum });
codec_struct!(Part { number, data, modified, md5, checksum });

codec_struct!(Shelf { bucket, index_shard });
codec_enum!(WriteCondition, "write condition" { 0 => None {}, 1 => Absent {}, 2 => ETag { etag }, 3 => Present {} });
codec_struct!(Command { txn, time, change });
codec_enum!(Change, "change" {
    1 => Put { shelf, key, versioning, condition, record, data },
    2 => Delete { shelf, key, versioning, condition, selector },
    3 => CreateUpload { shelf, key, upload },
    4 => PutPart { shelf, key, upload, number, md5, checksum, data },
    5 => CompleteUpload { shelf, key, upload, versioning, condition, record },
    6 => AbortUpload { shelf, key, upload },
    7 => SetAttributes { shelf, key, selector, written_by, attributes },
    8 => FenceShelf { shelf },
    9 => UnfenceShelf { shelf },
    10 => AbortTxns { txns },
    11 => FinishGc { chunks, before },
    12 => MoveShard { shelf, key, owner, chunk, index, from, to },
    13 => Forget { before },
    14 => Nothing {},
    15 => PurgeShelf { shelf },
    16 => Recode { shelf, key, owner, from, to },
    17 => FinishGcRows { rows },
});
codec_enum!(Outcome, "outcome" {
    1 => Written { version, modified },
    2 => Deleted { removed, removed_marker, marker },
    3 => UploadCreated {},
    4 => PartWritten {},
    5 => UploadAborted {},
    6 => Done {},
    7 => PreconditionFailed {},
    8 => NoSuchKey {},
    9 => NoSuchVersion {},
    10 => NoSuchUpload {},
    11 => IsDeleteMarker {},
    12 => PartsChanged {},
    13 => BucketGone {},
    14 => NotEmpty {},
    15 => TxnAborted {},
    16 => Moved {},
    17 => Malformed { why },
});
codec_struct!(Garbage { entry, since });
codec_struct!(FiledChunk { shelf, key, owner, entry });

codec_enum!(Query, "query" {
    1 => Version { shelf, key, selector },
    2 => Data { shelf, key, txns },
    3 => ListObjects { shelf, list },
    4 => ListVersions { shelf, list, version_marker },
    5 => ListUploads { shelf, list, upload_marker },
    6 => Upload { shelf, key, upload },
    7 => ListParts { shelf, key, upload, after, limit },
    8 => Garbage { before, after, limit },
    9 => Degraded { after, limit },
    10 => Referenced { txns },
    11 => CompletedUpload { shelf, key, upload },
    12 => Survey { after, limit, now },
    13 => Holdings { disks, after, limit },
    14 => Members {},
});
codec_struct!(RecordPlace { shelf, key, owner });
codec_struct!(SurveyedChunk { filed, movers, departed });
codec_struct!(ListRange { prefix, delimiter, after, limit });
codec_enum!(Answer, "answer" {
    1 => Version { version, inline },
    2 => Data { records },
    3 => Objects { items, more },
    4 => Versions { items, more },
    5 => Uploads { items, more },
    6 => Upload { upload },
    7 => Parts { parts, more },
    8 => Garbage { garbage },
    9 => Degraded { chunks },
    10 => Referenced { txns },
    11 => NoSuchKey { marker },
    12 => NoSuchVersion {},
    13 => NoSuchUpload {},
    14 => BucketGone {},
    15 => Malformed { why },
    16 => CompletedUpload { version, modified, etag, checksum },
    17 => Survey { chunks, next },
    18 => Holdings { shards, bytes, next },
    19 => Members { replicas },
});

impl<T: Encode> Encode for ListItem<T> {
    fn encode(&self, out: &mut Encoder) {
        match self {
            ListItem::Entry { key, value } => {
                out.u8(0);
                key.encode(out);
                value.encode(out);
            }
            ListItem::Prefix { prefix } => {
                out.u8(1);
                prefix.encode(out);
            }
        }
    }
}

impl<T: Decode> Decode for ListItem<T> {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            0 => Ok(ListItem::Entry { key: Decode::decode(input)?, value: T::decode(input)? }),
            1 => Ok(ListItem::Prefix { prefix: Decode::decode(input)? }),
            tag => Err(DecodeError::UnknownTag { what: "list item", tag }),
        }
    }
}

codec_struct!(Owner { txn, slot });
codec_struct!(WriteChunk { chunk, owner, profile, bytes });
codec_struct!(WriteShard { disk, shard, owner, profile });
codec_struct!(Target { disk, owner });
codec_struct!(RestoreShards { source, targets });
codec_struct!(DiskReport { disk, path, health, total_bytes, available_bytes, shard_bytes, shards, quarantined, scrub });
codec_enum!(DiskHealth, "disk health" { 0 => Good {}, 1 => Full {}, 2 => Dead {} });
codec_struct!(ScrubTally { began, shards, bytes, damaged, dark, unreadable });
codec_struct!(ScrubReport { current, finished });
codec_enum!(Held, "shard's state" { 0 => Whole {}, 1 => Missing {}, 2 => Damaged {} });
codec_enum!(DamageReport, "damage report" { 1 => Shards { shards }, 2 => Disk { disk } });
codec_enum!(ShardVerdict, "shard's verdict" {
    0 => Whole {},
    1 => Owed {},
    2 => Missing {},
    3 => Corrupt { why },
    4 => Unknown { why },
});
codec_enum!(ContentVerdict, "content's verdict" { 0 => Right {}, 1 => Wrong {}, 2 => Lost {}, 3 => Unknown {} });
codec_struct!(ChunkVerdict { shards, content });
codec_struct!(Tally { keys, chunks, bytes });
codec_struct!(Work { shards, bytes, stuck });
codec_struct!(GroupSurvey {
    group,
    epoch,
    at,
    all,
    lost,
    leaving,
    misplaced,
    outdated,
    profiles,
    unreadable,
    gone,
    margins,
    without_disk,
    without_node,
    without_zone,
});
codec_struct!(UpkeepReport { surveys, bytes_last_minute, bytes_total, system_copied });
codec_struct!(GroupReport { group, leader, term, applied });
codec_enum!(MetaError, "metadata error" {
    1 => NotLeader { group, leader },
    2 => NoSuchGroup { group },
    3 => Unavailable { group, why },
    4 => Unknown { group, why },
    5 => BadMessage { why },
});
codec_enum!(ShardError, "shard error" {
    1 => NotFound { disk, shard },
    2 => Corrupt { disk, shard, unit },
    3 => NoSuchDisk { disk },
    4 => Full { disk },
    5 => Dead { disk, why },
    6 => Exists { disk, shard },
    7 => BodyFailed { why },
    8 => Unreachable { why },
    9 => BadMessage { why },
});

codec_versioned!(VERSION {
    Command, "a command";
    Outcome, "an outcome";
    Query, "a query";
    Answer, "an answer";
});

/// Counts travel as 64-bit numbers.
impl Encode for ChunkError {
    fn encode(&self, out: &mut Encoder) {
        match self {
            ChunkError::NoQuorum { chunk, acked, quorum, why } => {
                out.u8(1);
                chunk.encode(out);
                out.u64(*acked as u64);
                out.u64(*quorum as u64);
                why.encode(out);
            }
            ChunkError::Unreadable { chunk, readable, needed, why } => {
                out.u8(2);
                chunk.encode(out);
                out.u64(*readable as u64);
                out.u64(*needed as u64);
                why.encode(out);
            }
            ChunkError::WrongLength { chunk } => {
                out.u8(3);
                chunk.encode(out);
            }
            ChunkError::Full => out.u8(4),
            ChunkError::BodyFailed { why } => {
                out.u8(5);
                why.encode(out);
            }
            ChunkError::Unreachable { why } => {
                out.u8(6);
                why.encode(out);
            }
            ChunkError::BadMessage { why } => {
                out.u8(7);
                why.encode(out);
            }
        }
    }
}

impl Decode for ChunkError {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = |input: &mut Decoder<'_>| usize::try_from(input.u64()?).map_err(|_| DecodeError::Invalid { what: "count" });
        Ok(match input.u8()? {
            1 => ChunkError::NoQuorum {
                chunk: Decode::decode(input)?,
                acked: count(input)?,
                quorum: count(input)?,
                why: Decode::decode(input)?,
            },
            2 => ChunkError::Unreadable {
                chunk: Decode::decode(input)?,
                readable: count(input)?,
                needed: count(input)?,
                why: Decode::decode(input)?,
            },
            3 => ChunkError::WrongLength { chunk: Decode::decode(input)? },
            4 => ChunkError::Full,
            5 => ChunkError::BodyFailed { why: Decode::decode(input)? },
            6 => ChunkError::Unreachable { why: Decode::decode(input)? },
            7 => ChunkError::BadMessage { why: Decode::decode(input)? },
            tag => return Err(DecodeError::UnknownTag { what: "chunk error", tag }),
        })
    }
}

#[cfg(test)]
mod tests;
