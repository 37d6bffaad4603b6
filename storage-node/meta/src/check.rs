//! What a command must be by itself, whatever the state: its form, its limits, its sums.
//!
//! A manifest entry that breaks I2 is refused here, before anything is written: never committed, so never read.

use std::collections::BTreeSet;

use placement_types::{CHUNK_BYTES_MAX, INLINE_BYTES_MAX, Timestamp, TxnId};
use storage_node_proto::command::{Change, Command, WriteCondition};
use storage_node_proto::object::{ChunkEntry, Data, DataRef, ObjectRecord};

use crate::limits::{CHUNKS_MAX, ETAG_BYTES_MAX, FORGET_AGE_MIN, NAMES_MAX, PART_NUMBER_MAX};

/// Says what is wrong with a command, if anything is.
pub(crate) fn command(command: &Command) -> Result<(), &'static str> {
    match &command.change {
        Change::Put { condition, record, data, .. } => {
            write_condition(condition)?;
            put(command.txn, record, data.as_ref())
        }
        Change::Delete { condition, .. } => write_condition(condition),
        Change::PutPart { number, data, .. } => {
            part_number(*number)?;
            data.as_ref().map_or(Ok(()), stored)
        }
        Change::CompleteUpload { condition, record, .. } => {
            write_condition(condition)?;
            complete(record)
        }
        Change::AbortTxns { txns } => require(txns.len() <= NAMES_MAX, "too many transactions"),
        Change::FinishGc { chunks, .. } => require(chunks.len() <= NAMES_MAX, "too many chunks"),
        Change::FinishGcRows { rows } => require(rows.len() <= NAMES_MAX, "too many rows of garbage"),
        Change::MoveShard { from, to, .. } => require(from != to, "a move must change the disk"),
        Change::Recode { from, to, .. } => recode(from, to),
        Change::Forget { before } => forget(command.time, *before),
        Change::CreateUpload { .. }
        | Change::AbortUpload { .. }
        | Change::SetAttributes { .. }
        | Change::FenceShelf { .. }
        | Change::UnfenceShelf { .. }
        | Change::PurgeShelf { .. }
        | Change::Nothing {} => Ok(()),
    }
}

fn require(holds: bool, why: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(why) }
}

fn write_condition(condition: &WriteCondition) -> Result<(), &'static str> {
    match condition {
        WriteCondition::ETag { etag: wanted } => etag(wanted),
        WriteCondition::None | WriteCondition::Absent | WriteCondition::Present => Ok(()),
    }
}

fn etag(etag: &str) -> Result<(), &'static str> {
    require(etag.len() <= ETAG_BYTES_MAX, "the etag is too long")
}

fn part_number(number: u16) -> Result<(), &'static str> {
    require((1..=PART_NUMBER_MAX).contains(&number), "no such part number")
}

fn put(txn: TxnId, record: &ObjectRecord, data: Option<&Data>) -> Result<(), &'static str> {
    etag(&record.etag)?;
    require(record.parts.is_empty(), "a plain put has no parts")?;
    let Some(data) = data else {
        return require(record.bytes == 0 && record.data.is_empty(), "an object without data has zero bytes");
    };
    stored(data)?;
    let bytes = data.bytes();
    require(bytes > 0, "an object of zero bytes has no data")?;
    require(record.bytes == bytes, "the data's bytes do not add up to the object's")?;
    require(record.data == [DataRef { txn, bytes }], "a plain put refers to the data it brings, and only to that")
}

fn complete(record: &ObjectRecord) -> Result<(), &'static str> {
    etag(&record.etag)?;
    require(!record.parts.is_empty(), "an upload is completed with at least one part")?;
    require(record.parts.len() == record.data.len(), "every part has one data record")?;
    require(record.parts.is_sorted_by(|a, b| a.number < b.number), "parts come in ascending order, each once")?;
    let mut bytes = 0u64;
    for (part, data) in record.parts.iter().zip(&record.data) {
        part_number(part.number)?;
        require(part.bytes == data.bytes, "a part is as long as its data")?;
        bytes = bytes.checked_add(data.bytes).ok_or("the parts' bytes overflow")?;
    }
    require(record.bytes == bytes, "the parts' bytes do not add up to the object's")
}

/// The invariants of [`Data`] and [`ChunkEntry`].
fn stored(data: &Data) -> Result<(), &'static str> {
    match data {
        Data::Inline(bytes) => require(bytes.len() as u64 <= INLINE_BYTES_MAX, "too many bytes to be inline"),
        Data::Chunks(chunks) => {
            require(!chunks.is_empty() && chunks.len() <= CHUNKS_MAX, "no chunks, or too many")?;
            let ids: BTreeSet<_> = chunks.iter().map(|entry| entry.chunk).collect();
            require(ids.len() == chunks.len(), "a chunk comes twice")?;
            chunks.iter().try_for_each(chunk)
        }
    }
}

fn chunk(entry: &ChunkEntry) -> Result<(), &'static str> {
    require(entry.bytes > 0 && u64::from(entry.bytes) <= CHUNK_BYTES_MAX, "a chunk is empty or too long")?;
    require(entry.shards.len() == entry.profile.width(), "a chunk has not one slot per unit of its profile")?;
    let present = entry.shards.iter().flatten().count();
    require(present >= entry.profile.write_quorum(), "a chunk has fewer shards than its write quorum")?;
    let disks: BTreeSet<_> = entry.shards.iter().flatten().collect();
    require(disks.len() == present, "a disk holds two shards of a chunk")
}

/// Re-coding changes where bytes are, never which: and never for a chunk that repair would have to complete.
fn recode(from: &ChunkEntry, to: &ChunkEntry) -> Result<(), &'static str> {
    chunk(to)?;
    require(!to.shards.contains(&None), "a re-coded chunk has all of its shards")?;
    require(from.chunk != to.chunk, "a re-coded chunk has an id of its own")?;
    require((from.bytes, from.hash) == (to.bytes, to.hash), "a re-coded chunk has the bytes it had")
}

fn forget(now: Timestamp, before: Timestamp) -> Result<(), &'static str> {
    require(before.plus(FORGET_AGE_MIN) <= now, "what is to be forgotten is too young")
}
