//! Data records: filing what a PUT or a part brings, dropping it, moving its shards between disks, and re-coding its chunks.
//!
//! A record is filed under its key and the transaction that wrote it, and belongs to exactly one version or part (I3).
//! Completing an upload renames nothing: the version names the records of its parts. So whatever is done to a record's chunks
//! here is seen by whoever has it, a part of an upload in progress included.

use bytes::Bytes;
use placement_types::{ChunkId, DiskId, TxnId};
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::{FiledChunk, Outcome};
use storage_node_proto::object::{ChunkEntry, Data};

use crate::apply::Entry;
use crate::format::{self, DataRow, Departure, MovedFrom, Mover, Place, table};
use crate::view::View;
use crate::{claims, garbage};

/// One slot of a chunk in the data record of `owner`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotOfChunk {
    pub(crate) owner: TxnId,
    pub(crate) chunk: ChunkId,
    pub(crate) index: u8,
}

/// Files `data` under `txn`, which must have no record there yet.
pub(crate) fn file(state: &mut Overlay<'_>, place: Place<'_>, txn: TxnId, data: &Data) -> Result<(), KvError> {
    let row = DataRow { data: data.clone(), movers: Vec::new(), departures: Vec::new() };
    state.put(format::data_row(place, txn), format::encode_value(&row));
    claims::add(state, txn, 1)?;
    if let Data::Chunks(chunks) = data {
        state.put(format::chunked_row(place, txn), Bytes::new());
        for chunk in chunks.iter().filter(|chunk| chunk.shards.contains(&None)) {
            owe(state, place, txn, chunk);
        }
    }
    Ok(())
}

/// Drops a record: its chunks go to the gc queue, its inline bytes at once.
pub(crate) fn drop_record(state: &mut Overlay<'_>, entry: Entry, place: Place<'_>, txn: TxnId) -> Result<(), KvError> {
    let row = View(&*state).data(place, txn)?;
    let row = row.ok_or_else(|| KvError::Corrupt { detail: format!("the data record of transaction {txn} is lost") })?;
    state.delete(format::data_row(place, txn));
    match row.data {
        Data::Inline(_) => claims::release(state, txn)?,
        Data::Chunks(chunks) => {
            state.delete(format::chunked_row(place, txn));
            // The record's claim passes to its first chunk in the queue; the others need one each.
            claims::add(state, txn, (chunks.len() as u64).saturating_sub(1))?;
            for chunk in chunks {
                let movers = row.movers.iter().filter(|mover| mover.chunk == chunk.chunk).map(|mover| mover.txn);
                let releases = std::iter::once(txn).chain(movers).collect();
                if chunk.shards.contains(&None) {
                    state.delete(degraded_row(chunk.chunk));
                }
                garbage::add(state, entry, chunk, releases, None);
            }
        }
    }
    Ok(())
}

/// Swaps the disk of a slot if it still is `from`.
pub(crate) fn move_shard(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    slot: SlotOfChunk,
    from: Option<DiskId>,
    to: Option<DiskId>,
) -> Result<Outcome, KvError> {
    let Some(mut row) = View(&*state).data(place, slot.owner)? else { return Ok(Outcome::Moved) };
    let Data::Chunks(chunks) = &mut row.data else { return Ok(Outcome::Moved) };
    let Some(chunk) = chunks.iter_mut().find(|chunk| chunk.chunk == slot.chunk) else { return Ok(Outcome::Moved) };
    if chunk.shards.get(usize::from(slot.index)) != Some(&from) {
        return Ok(Outcome::Moved);
    }
    row.departures.retain(|departure| departure.counts_at(entry.time));
    if !may_move(chunk, &row.departures, slot, to) {
        return Ok(Outcome::PreconditionFailed);
    }

    let was_degraded = chunk.shards.contains(&None);
    chunk.shards[usize::from(slot.index)] = to;
    match (chunk.shards.contains(&None), was_degraded) {
        (true, _) => owe(state, place, slot.owner, chunk),
        (false, true) => state.delete(degraded_row(chunk.chunk)),
        (false, false) => {}
    }
    if let Some(disk) = from {
        let mut left = chunk.clone();
        left.shards = (0..chunk.shards.len()).map(|at| (at == usize::from(slot.index)).then_some(disk)).collect();
        leave(state, entry, place, slot, &mut row, disk, left)?;
        if to.is_some() {
            row.movers.push(Mover { chunk: slot.chunk, index: slot.index, txn: entry.txn });
            claims::add(state, entry.txn, 1)?;
        }
    }
    state.put(format::data_row(place, slot.owner), format::encode_value(&row));
    Ok(Outcome::Done)
}

/// Swaps a chunk for another coding of its bytes, if its entry still is `from`.
pub(crate) fn recode(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    owner: TxnId,
    from: &ChunkEntry,
    to: &ChunkEntry,
) -> Result<Outcome, KvError> {
    let Some(mut row) = View(&*state).data(place, owner)? else { return Ok(Outcome::Moved) };
    let Data::Chunks(chunks) = &mut row.data else { return Ok(Outcome::Moved) };
    let Some(position) = chunks.iter().position(|chunk| chunk == from) else { return Ok(Outcome::Moved) };
    if chunks.iter().any(|chunk| chunk.chunk == to.chunk) {
        return Ok(Outcome::Malformed { why: "the record has a chunk of that id".into() });
    }
    let old = std::mem::replace(&mut chunks[position], to.clone());
    if old.shards.contains(&None) {
        state.delete(degraded_row(old.chunk));
    }
    let mut releases = vec![owner];
    row.movers.retain(|mover| {
        let of_old = mover.chunk == old.chunk;
        if of_old {
            releases.push(mover.txn);
        }
        !of_old
    });
    // The record keeps its own claim; what of the old chunk its owner wrote waits in the queue under another.
    claims::add(state, owner, 1)?;
    row.departures.retain(|departure| departure.chunk != old.chunk);
    garbage::add(state, entry, old, releases, None);
    let written = (0u8..).zip(&to.shards).map(|(index, _)| Mover { chunk: to.chunk, index, txn: entry.txn });
    row.movers.extend(written);
    claims::add(state, entry.txn, to.shards.len() as u64)?;
    state.put(format::data_row(place, owner), format::encode_value(&row));
    Ok(Outcome::Done)
}

/// Whether the slot may go to `to`: no disk has two shards of a chunk, none takes a slot back whose old shard may still be
/// deleted there, and giving a slot up must leave enough shards to rebuild the chunk from.
fn may_move(chunk: &ChunkEntry, departures: &[Departure], slot: SlotOfChunk, to: Option<DiskId>) -> bool {
    match to {
        Some(disk) => {
            let departed = |left: &Departure| (left.chunk, left.index, left.disk) == (slot.chunk, slot.index, disk);
            !chunk.shards.contains(&Some(disk)) && !departures.iter().any(departed)
        }
        None => chunk.shards.iter().flatten().count() > chunk.profile.data(),
    }
}

/// Queues the shard that the slot left behind. The claim of whoever wrote it goes with it.
fn leave(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    slot: SlotOfChunk,
    row: &mut DataRow,
    disk: DiskId,
    left: ChunkEntry,
) -> Result<(), KvError> {
    let mover = row.movers.iter().position(|mover| (mover.chunk, mover.index) == (slot.chunk, slot.index));
    let writer = match mover {
        Some(mover) => row.movers.remove(mover).txn,
        None => {
            claims::add(state, slot.owner, 1)?;
            slot.owner
        }
    };
    row.departures.push(Departure { chunk: slot.chunk, index: slot.index, disk, freed: None });
    let moved = MovedFrom { shelf: place.shelf, key: place.key.clone(), owner: slot.owner, index: slot.index, disk };
    garbage::add(state, entry, left, vec![writer], Some(moved));
    Ok(())
}

fn degraded_row(chunk: ChunkId) -> Vec<u8> {
    format::row(table::DEGRADED, &[&chunk.to_bytes()])
}

/// Tells repair that a chunk lacks shards.
fn owe(state: &mut Overlay<'_>, place: Place<'_>, owner: TxnId, chunk: &ChunkEntry) {
    let degraded = FiledChunk { shelf: place.shelf, key: place.key.clone(), owner, entry: chunk.clone() };
    state.put(degraded_row(chunk.chunk), format::encode_value(&degraded));
}
