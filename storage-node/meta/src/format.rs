//! The byte forms of a metadata group's rows: the one place that knows them.
//!
//! A row is a table's tag, then the row's key. Integers are big-endian, so that rows sort by them; a shelf is the bucket id
//! (16 bytes) and the index shard (2); an object key ends with a zero byte, which no key holds, so that rows sort exactly as
//! keys do (`a`, `a!`, `ab`) and all rows of one key are neighbours. Values begin with [`VERSION`].
//!
//! | tag | table | key | value |
//! |---|---|---|---|
//! | 01 | versions | shelf, key 00, inverted sequence (8): newest first | `Version` |
//! | 02 | null versions | shelf, key 00 | sequence (8) of the key's null version |
//! | 03 | data records | shelf, key 00, transaction (16) | [`DataRow`] |
//! | 04 | uploads | shelf, key 00, upload (16) | `Upload` |
//! | 05 | uploads in order | shelf, key 00, initiated (8), upload (16) | nothing |
//! | 06 | parts | shelf, key 00, upload (16), number (2) | `Part` |
//! | 07 | completed uploads | shelf, key 00, upload (16) | [`Completed`] |
//! | 08 | shelf fences | shelf | time of the fence |
//! | 09 | records with chunks | shelf, key 00, transaction (16) | nothing: the record is in table 03 |
//! | 10 | garbage | since (8), chunk (16), the transaction that dropped it (16) | [`GarbageRow`] |
//! | 11 | garbage by chunk | chunk (16), since (8), transaction (16) | nothing |
//! | 12 | degraded chunks | chunk (16) | `Degraded` |
//! | 13 | outcomes | transaction (16) | `Outcome` |
//! | 14 | aborted transactions | transaction (16) | nothing |
//! | 15 | rows to forget | time (8), the whole row that expires | nothing |
//! | 16 | claims | transaction (16) | how much the transaction wrote that is referred to (8) |
//! | 20 | the group | | [`Group`] |

use bytes::Bytes;
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{BucketId, ChunkId, DiskId, ObjectKey, Timestamp, TxnId, UploadId, codec_struct};
use storage_node_kv::KvError;
use storage_node_proto::command::{Garbage, Shelf};
use storage_node_proto::object::{Checksum, Data, ObjectAttributes, ObjectRecord, Version, VersionBody, VersionId};
use storage_node_proto::query::RecordPlace;

use crate::limits::RETURN_AFTER;

/// The newest version of the values.
const VERSION: u16 = 1;

/// Tags.
pub(crate) mod table {
    pub(crate) const VERSIONS: u8 = 0x01;
    pub(crate) const NULL_VERSIONS: u8 = 0x02;
    pub(crate) const DATA: u8 = 0x03;
    pub(crate) const UPLOADS: u8 = 0x04;
    pub(crate) const UPLOADS_ORDERED: u8 = 0x05;
    pub(crate) const PARTS: u8 = 0x06;
    pub(crate) const COMPLETED: u8 = 0x07;
    pub(crate) const FENCES: u8 = 0x08;
    pub(crate) const CHUNKED: u8 = 0x09;
    pub(crate) const GARBAGE: u8 = 0x10;
    pub(crate) const GARBAGE_BY_CHUNK: u8 = 0x11;
    pub(crate) const DEGRADED: u8 = 0x12;
    pub(crate) const OUTCOMES: u8 = 0x13;
    pub(crate) const ABORTED: u8 = 0x14;
    pub(crate) const EXPIRY: u8 = 0x15;
    pub(crate) const CLAIMS: u8 = 0x16;
    pub(crate) const GROUP: u8 = 0x20;
}

/// The bytes of a shelf in a row.
const SHELF_BYTES: usize = 18;

/// An object key on its shelf: what most rows are filed under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) shelf: Shelf,
    pub(crate) key: &'a ObjectKey,
}

/// A data record with what moves of its shards leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataRow {
    pub(crate) data: Data,
    /// The shards that a MoveShard or Recode, not the record's own transaction, wrote.
    pub(crate) movers: Vec<Mover>,
    pub(crate) departures: Vec<Departure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mover {
    pub(crate) chunk: ChunkId,
    pub(crate) index: u8,
    pub(crate) txn: TxnId,
}

/// A disk that a slot moved away from, and may not return to yet: see [`crate::limits::RETURN_AFTER`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) chunk: ChunkId,
    pub(crate) index: u8,
    pub(crate) disk: DiskId,
    /// When the shard it left was deleted there; `None` while it waits for that.
    pub(crate) freed: Option<Timestamp>,
}

impl Departure {
    /// Whether the slot may not return there yet.
    pub(crate) fn counts_at(&self, now: Timestamp) -> bool {
        self.freed.is_none_or(|freed| now < freed.plus(RETURN_AFTER))
    }
}

/// Garbage with what to do once it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GarbageRow {
    pub(crate) garbage: Garbage,
    /// The transactions that wrote its shards, each of which then loses a claim.
    pub(crate) releases: Vec<TxnId>,
    /// When it is one shard that moved: where from.
    pub(crate) moved: Option<MovedFrom>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MovedFrom {
    pub(crate) shelf: Shelf,
    pub(crate) key: ObjectKey,
    pub(crate) owner: TxnId,
    pub(crate) index: u8,
    pub(crate) disk: DiskId,
}

/// What a repeated CompleteUpload is answered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) version: VersionId,
    pub(crate) modified: Timestamp,
    pub(crate) etag: String,
    pub(crate) checksum: Option<Checksum>,
}

/// What a group knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// The last version's.
    pub(crate) sequence: u64,
    /// Outcomes and fences from before it are forgotten, so commands from before it are refused.
    pub(crate) floor: Timestamp,
}

codec_struct!(DataRow { data, movers, departures });
codec_struct!(Mover { chunk, index, txn });
codec_struct!(Departure { chunk, index, disk, freed });
codec_struct!(GarbageRow { garbage, releases, moved });
codec_struct!(MovedFrom { shelf, key, owner, index, disk });
codec_struct!(Completed { version, modified, etag, checksum });
codec_struct!(Group { sequence, floor });

/// A row of a table whose keys begin with something else than a shelf.
pub(crate) fn row(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    row.push(table);
    for part in parts {
        row.extend_from_slice(part);
    }
    row
}

/// What all rows of a shelf in a table begin with.
pub(crate) fn shelf_row(table: u8, shelf: Shelf) -> Vec<u8> {
    row(table, &[&shelf.bucket.to_bytes(), &shelf.index_shard.to_be_bytes()])
}

/// What all rows of a key in a table begin with.
pub(crate) fn key_row(table: u8, place: Place<'_>) -> Vec<u8> {
    row(table, &[&place.shelf.bucket.to_bytes(), &place.shelf.index_shard.to_be_bytes(), place.key.as_bytes(), &[0]])
}

/// A row filed under a key.
pub(crate) fn place_row(table: u8, place: Place<'_>, rest: &[&[u8]]) -> Vec<u8> {
    let mut row = key_row(table, place);
    for part in rest {
        row.extend_from_slice(part);
    }
    row
}

pub(crate) fn version_row(place: Place<'_>, sequence: u64) -> Vec<u8> {
    place_row(table::VERSIONS, place, &[&(!sequence).to_be_bytes()])
}

pub(crate) fn data_row(place: Place<'_>, txn: TxnId) -> Vec<u8> {
    place_row(table::DATA, place, &[&txn.to_bytes()])
}

pub(crate) fn chunked_row(place: Place<'_>, txn: TxnId) -> Vec<u8> {
    place_row(table::CHUNKED, place, &[&txn.to_bytes()])
}

/// The place that a row of [`table::CHUNKED`] stands for.
pub(crate) fn chunked_place(row: &[u8]) -> Result<RecordPlace, KvError> {
    let corrupt = || KvError::Corrupt { detail: "a row of chunked records is not one".into() };
    let (key, owner) = split_row(row)?;
    let bucket = row.get(1..17).and_then(|bytes| bytes.try_into().ok()).ok_or_else(corrupt)?;
    let index_shard = row.get(17..19).and_then(|bytes| bytes.try_into().ok()).ok_or_else(corrupt)?;
    let owner = owner.try_into().map_err(|_| corrupt())?;
    Ok(RecordPlace {
        shelf: Shelf { bucket: BucketId::from_bytes(bucket), index_shard: u16::from_be_bytes(index_shard) },
        key: key_of(key)?,
        owner: TxnId::from_bytes(owner),
    })
}

pub(crate) fn upload_row(place: Place<'_>, upload: UploadId) -> Vec<u8> {
    place_row(table::UPLOADS, place, &[&upload.to_bytes()])
}

pub(crate) fn ordered_upload_row(place: Place<'_>, initiated: Timestamp, upload: UploadId) -> Vec<u8> {
    place_row(table::UPLOADS_ORDERED, place, &[&initiated.as_millis().to_be_bytes(), &upload.to_bytes()])
}

pub(crate) fn part_row(place: Place<'_>, upload: UploadId, number: u16) -> Vec<u8> {
    place_row(table::PARTS, place, &[&upload.to_bytes(), &number.to_be_bytes()])
}

pub(crate) fn completed_row(place: Place<'_>, upload: UploadId) -> Vec<u8> {
    place_row(table::COMPLETED, place, &[&upload.to_bytes()])
}

pub(crate) fn garbage_row(since: Timestamp, chunk: ChunkId, dropped_by: TxnId) -> Vec<u8> {
    row(table::GARBAGE, &[&since.as_millis().to_be_bytes(), &chunk.to_bytes(), &dropped_by.to_bytes()])
}

pub(crate) fn garbage_by_chunk_row(chunk: ChunkId, since: Timestamp, dropped_by: TxnId) -> Vec<u8> {
    row(table::GARBAGE_BY_CHUNK, &[&chunk.to_bytes(), &since.as_millis().to_be_bytes(), &dropped_by.to_bytes()])
}

pub(crate) fn expiry_row(time: Timestamp, expires: &[u8]) -> Vec<u8> {
    row(table::EXPIRY, &[&time.as_millis().to_be_bytes(), expires])
}

/// The time of an expiry row.
pub(crate) fn expiry_time(row: &[u8]) -> Result<Timestamp, KvError> {
    let millis = row.get(1..).and_then(<[u8]>::first_chunk);
    let millis = millis.ok_or_else(|| KvError::Corrupt { detail: "an expiry row has no time".into() })?;
    Ok(Timestamp::from_millis(u64::from_be_bytes(*millis)))
}

/// Splits a row filed under a key into the key and what follows its zero byte.
pub(crate) fn split_row(row: &[u8]) -> Result<(&[u8], &[u8]), KvError> {
    let corrupt = || KvError::Corrupt { detail: "a row is not filed under a key".into() };
    let filed = row.get(1 + SHELF_BYTES..).ok_or_else(corrupt)?;
    let end = filed.iter().position(|byte| *byte == 0).ok_or_else(corrupt)?;
    Ok((&filed[..end], &filed[end + 1..]))
}

/// The sequence at the end of a version's row.
pub(crate) fn sequence_of(row: &[u8]) -> Result<u64, KvError> {
    let (_, rest) = split_row(row)?;
    let inverted = rest.try_into().map_err(|_| KvError::Corrupt { detail: "a version's row has no sequence".into() })?;
    Ok(!u64::from_be_bytes(inverted))
}

pub(crate) fn key_of(bytes: &[u8]) -> Result<ObjectKey, KvError> {
    ObjectKey::from_bytes(Bytes::copy_from_slice(bytes))
        .map_err(|error| KvError::Corrupt { detail: format!("a row's key: {error}") })
}

pub(crate) fn encode_value<T: Encode>(value: &T) -> Bytes {
    let mut out = Encoder::new();
    out.u16(VERSION);
    value.encode(&mut out);
    out.finish()
}

pub(crate) fn decode_value<T: Decode>(what: &'static str, bytes: &[u8]) -> Result<T, KvError> {
    read_value(what, bytes, |input| T::decode(input)).and_then(|(value, left)| match left {
        0 => Ok(value),
        left => Err(KvError::Corrupt { detail: format!("{what}: {left} bytes are left over") }),
    })
}

/// Whether a version's value is a delete marker, read without decoding the rest of it.
pub(crate) fn is_marker(bytes: &[u8]) -> Result<bool, KvError> {
    let read = |input: &mut Decoder<'_>| {
        VersionId::decode(input)?;
        TxnId::decode(input)?;
        Timestamp::decode(input)?;
        match input.u8()? {
            0 => Ok(true),
            1 => Ok(false),
            tag => Err(DecodeError::UnknownTag { what: "version body", tag }),
        }
    };
    Ok(read_value("a version", bytes, read)?.0)
}

/// A version as listings tell it: without the ends of its record, which a version of thousands of parts makes long.
pub(crate) fn listed_version(bytes: &[u8]) -> Result<Version, KvError> {
    let read = |input: &mut Decoder<'_>| {
        let (id, txn, modified) = (Decode::decode(input)?, Decode::decode(input)?, Decode::decode(input)?);
        let body = match input.u8()? {
            0 => VersionBody::DeleteMarker,
            1 => VersionBody::Object(ObjectRecord {
                bytes: Decode::decode(input)?,
                etag: Decode::decode(input)?,
                attributes: ObjectAttributes::decode(input)?,
                checksum: Decode::decode(input)?,
                data: Vec::new(),
                parts: Vec::new(),
            }),
            tag => return Err(DecodeError::UnknownTag { what: "version body", tag }),
        };
        Ok(Version { id, txn, modified, body })
    };
    Ok(read_value("a version", bytes, read)?.0)
}

/// Reads the front of a value, and tells how many bytes it left.
fn read_value<T>(
    what: &'static str,
    bytes: &[u8],
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<(T, usize), KvError> {
    let mut input = Decoder::new(bytes);
    input
        .version(what, VERSION)
        .and_then(|_| read(&mut input))
        .map(|value| (value, input.left()))
        .map_err(|error| KvError::Corrupt { detail: format!("{what}: {error}") })
}

#[cfg(test)]
mod tests {
    use storage_node_proto::object::DataRef;

    use super::*;

    fn shelf() -> Shelf {
        Shelf { bucket: BucketId::from_u128(7), index_shard: 3 }
    }

    #[test]
    fn rows_sort_as_keys_do_and_newest_first() {
        let keys = ["a", "a\u{1}", "a!", "a/", "ab", "b", "é", "\u{10ffff}"].map(|key| ObjectKey::parse(key).unwrap());
        let mut rows = Vec::new();
        for key in &keys {
            for sequence in [u64::MAX, 300, 2, 1] {
                rows.push(version_row(Place { shelf: shelf(), key }, sequence));
            }
        }
        assert!(rows.is_sorted());
        for (row, key) in rows.iter().step_by(4).zip(&keys) {
            assert_eq!(split_row(row).unwrap().0, key.as_bytes());
            assert_eq!(sequence_of(row).unwrap(), u64::MAX);
        }
    }

    #[test]
    fn the_row_of_a_record_with_chunks_tells_its_place() {
        for key in ["a", "é/\u{1}", &"k".repeat(1024)] {
            let (key, owner) = (ObjectKey::parse(key).unwrap(), TxnId::from_u128(u128::MAX << 8));
            let row = chunked_row(Place { shelf: shelf(), key: &key }, owner);
            assert_eq!(chunked_place(&row).unwrap(), RecordPlace { shelf: shelf(), key, owner });
        }
        assert!(chunked_place(&[table::CHUNKED; 20]).is_err());
    }

    #[test]
    fn a_listed_version_is_the_version_without_its_data() {
        let record = ObjectRecord {
            bytes: 5,
            etag: "e".into(),
            attributes: ObjectAttributes { tags: vec![("a".into(), "b".into())], ..ObjectAttributes::default() },
            checksum: None,
            data: vec![DataRef { txn: TxnId::from_u128(1), bytes: 5 }],
            parts: Vec::new(),
        };
        let id = VersionId::Id { sequence: 4, salt: 2 };
        let mut version =
            Version { id, txn: TxnId::from_u128(1), modified: Timestamp::from_millis(9), body: VersionBody::Object(record) };
        let bytes = encode_value(&version);
        assert_eq!(decode_value::<Version>("a version", &bytes).unwrap(), version);
        assert!(!is_marker(&bytes).unwrap());
        if let VersionBody::Object(record) = &mut version.body {
            record.data.clear();
        }
        assert_eq!(listed_version(&bytes).unwrap(), version);
        version.body = VersionBody::DeleteMarker;
        assert!(is_marker(&encode_value(&version)).unwrap());
    }

    #[test]
    fn a_value_of_another_version_or_with_bytes_left_over_is_corrupt() {
        let good = encode_value(&Group::default());
        for bad in [&good[..good.len() - 1], &[&good[..], &[0]].concat(), &[&[9, 9], &good[2..]].concat(), &[]] {
            assert!(matches!(decode_value::<Group>("the group", bad), Err(KvError::Corrupt { .. })));
        }
    }
}
