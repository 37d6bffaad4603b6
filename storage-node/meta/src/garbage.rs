//! The gc queue: chunks, and single shards that moved, which nothing refers to any more. They wait for a grace period (for
//! readers under way) and for their disks; then a worker deletes the shards and says so with FinishGc or FinishGcRows.

use std::time::Duration;

use bytes::Bytes;
use placement_types::{ChunkId, Timestamp, TxnId};
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::{Garbage, Outcome};
use storage_node_proto::object::ChunkEntry;

use crate::apply::Entry;
use crate::claims;
use crate::format::{self, GarbageRow, MovedFrom, Place, table};
use crate::limits::CLOCK_DOUBT;
use crate::view::View;

/// Queues the shards that `dropped` lists. Each of `releases` has a claim that goes with them.
pub(crate) fn add(state: &mut Overlay<'_>, entry: Entry, dropped: ChunkEntry, releases: Vec<TxnId>, moved: Option<MovedFrom>) {
    let chunk = dropped.chunk;
    let row = GarbageRow { garbage: Garbage { entry: dropped, since: entry.time }, releases, moved };
    state.put(format::garbage_row(entry.time, chunk, entry.txn), format::encode_value(&row));
    state.put(format::garbage_by_chunk_row(chunk, entry.time, entry.txn), Bytes::new());
}

/// Drops from the queue what `chunks` had there from before `before`. What was queued later (another shard of the same chunk
/// moved meanwhile) stays: the worker did not know of it.
pub(crate) fn finish(state: &mut Overlay<'_>, entry: Entry, chunks: &[ChunkId], before: Timestamp) -> Result<Outcome, KvError> {
    for chunk in chunks {
        drop_between(state, entry, *chunk, Timestamp::default(), before)?;
    }
    Ok(Outcome::Done)
}

/// Drops from the queue what these chunks had there from exactly these times.
pub(crate) fn finish_rows(state: &mut Overlay<'_>, entry: Entry, rows: &[(ChunkId, Timestamp)]) -> Result<Outcome, KvError> {
    for (chunk, since) in rows {
        drop_between(state, entry, *chunk, *since, since.plus(Duration::from_millis(1)))?;
    }
    Ok(Outcome::Done)
}

/// Drops the rows of a chunk from `from` on, before `to`.
fn drop_between(state: &mut Overlay<'_>, entry: Entry, chunk: ChunkId, from: Timestamp, to: Timestamp) -> Result<(), KvError> {
    let [first, end] = [from, to].map(|time| format::garbage_by_chunk_row(chunk, time, TxnId::from_u128(0)));
    for (by_chunk, _) in View(&*state).rows(&first, &end, usize::MAX)? {
        let row = row_of(&by_chunk)?;
        let gone: Option<GarbageRow> = View(&*state).value("garbage", &row)?;
        let gone = gone.ok_or_else(|| KvError::Corrupt { detail: format!("garbage of chunk {chunk} has no row") })?;
        for txn in gone.releases {
            claims::release(state, txn)?;
        }
        if let Some(moved) = gone.moved {
            note_freed(state, chunk, &moved, freed_at(entry.time, gone.garbage.since))?;
        }
        state.delete(row);
        state.delete(by_chunk);
    }
    Ok(())
}

/// When a slot counts as freed by a worker that says so now, of garbage since `since`. Not before that, if the worker's clock is
/// behind; but at most so much later, for it may be that one that was ahead.
fn freed_at(now: Timestamp, since: Timestamp) -> Timestamp {
    now.max(since.min(now.plus(CLOCK_DOUBT)))
}

/// The row in the queue that a row of the index by chunk stands for.
fn row_of(by_chunk: &[u8]) -> Result<Vec<u8>, KvError> {
    let split = by_chunk.get(1..).and_then(|key| key.split_first_chunk::<16>()).and_then(|(chunk, rest)| {
        let (since, txn) = rest.split_first_chunk::<8>()?;
        Some((chunk, since, txn))
    });
    let (chunk, since, txn) = split.ok_or_else(|| KvError::Corrupt { detail: "a short row in the index of garbage".into() })?;
    Ok(format::row(table::GARBAGE, &[since, chunk, txn]))
}

/// Starts the time after which the slot may return to the disk, if the chunk still exists.
fn note_freed(state: &mut Overlay<'_>, chunk: ChunkId, moved: &MovedFrom, now: Timestamp) -> Result<(), KvError> {
    let place = Place { shelf: moved.shelf, key: &moved.key };
    let Some(mut row) = View(&*state).data(place, moved.owner)? else { return Ok(()) };
    for departure in &mut row.departures {
        if (departure.chunk, departure.index, departure.disk) == (chunk, moved.index, moved.disk) {
            departure.freed = Some(now);
        }
    }
    state.put(format::data_row(place, moved.owner), format::encode_value(&row));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_not_freed_before_its_shard_became_garbage_unless_that_cannot_be() {
        let [day, hour] = [24 * 3_600_000, 3_600_000];
        for (now, since, freed) in
            [(20 * hour, hour, 20 * hour), (20 * hour, 21 * hour, 21 * hour), (hour, 365 * day, hour + day)]
        {
            assert_eq!(freed_at(Timestamp::from_millis(now), Timestamp::from_millis(since)), Timestamp::from_millis(freed));
        }
    }
}
