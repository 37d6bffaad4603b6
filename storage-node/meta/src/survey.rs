//! Going through all chunks of a group: what repair, rebalance and the risk view are decided from.
//!
//! The index of records with chunks is walked instead of the records themselves, because most records of a group may be small
//! objects, whose bytes nobody wants to read for this.

use placement_types::{DiskId, Timestamp};
use storage_node_kv::{KvError, Prefixed};
use storage_node_proto::command::FiledChunk;
use storage_node_proto::object::{ChunkEntry, Data};
use storage_node_proto::query::{Answer, RecordPlace, SurveyedChunk};

use crate::answer::count;
use crate::format::{self, Departure, Mover, Place, table};
use crate::view::View;

/// Answers a `Survey`.
pub(crate) fn chunks(view: View<'_>, after: Option<&RecordPlace>, limit: u32, now: Timestamp) -> Result<Answer, KvError> {
    let mut chunks = Vec::new();
    let next = walk(view, after, limit, |place, entry, movers, departures| {
        let RecordPlace { shelf, key, owner } = place.clone();
        let of_chunk = departures.iter().filter(|departure| departure.chunk == entry.chunk && departure.counts_at(now));
        let departed = of_chunk.map(|departure| (departure.index, departure.disk)).collect();
        let movers = movers.iter().filter(|mover| mover.chunk == entry.chunk).map(|mover| (mover.index, mover.txn)).collect();
        chunks.push(SurveyedChunk { filed: FiledChunk { shelf, key, owner, entry }, movers, departed });
    })?;
    Ok(Answer::Survey { chunks, next })
}

/// Answers a `Holdings`.
pub(crate) fn holdings(view: View<'_>, disks: &[DiskId], after: Option<&RecordPlace>, limit: u32) -> Result<Answer, KvError> {
    let (mut shards, mut bytes) = (0u64, 0u64);
    let next = walk(view, after, limit, |_, entry, _, _| {
        let here = entry.shards.iter().flatten().filter(|disk| disks.contains(disk)).count() as u64;
        shards += here;
        bytes = bytes.saturating_add(here.saturating_mul(entry.shard_bytes()));
    })?;
    Ok(Answer::Holdings { shards, bytes, next })
}

/// Visits the chunks of records after `after` until it has seen `limit` chunks, or records; tells where to go on.
fn walk(
    view: View<'_>,
    after: Option<&RecordPlace>,
    limit: u32,
    mut visit: impl FnMut(&RecordPlace, ChunkEntry, &[Mover], &[Departure]),
) -> Result<Option<RecordPlace>, KvError> {
    let from = match after {
        // The row and a zero byte: the first row after it.
        Some(RecordPlace { shelf, key, owner }) => {
            let mut row = format::chunked_row(Place { shelf: *shelf, key }, *owner);
            row.push(0);
            row
        }
        None => vec![table::CHUNKED],
    };
    let limit = count(limit).max(1);
    let rows = view.rows(&from, &Prefixed::end_of(&[table::CHUNKED]), limit)?;
    let mut seen = 0;
    let mut last = None;
    for (row, _) in &rows {
        let place = format::chunked_place(row)?;
        let lost = || KvError::Corrupt { detail: format!("the data record of transaction {} is lost", place.owner) };
        let record = view.data(Place { shelf: place.shelf, key: &place.key }, place.owner)?.ok_or_else(lost)?;
        if let Data::Chunks(entries) = record.data {
            seen += entries.len();
            entries.into_iter().for_each(|entry| visit(&place, entry, &record.movers, &record.departures));
        }
        last = Some(place);
        if seen >= limit {
            return Ok(last);
        }
    }
    Ok(last.filter(|_| rows.len() == limit))
}
