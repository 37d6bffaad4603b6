//! Rebalance: copies shards that are whole, but not where they belong, and moves their slots.
//!
//! The order is what keeps every chunk readable at every instant (P18): the shard is copied and fsynced on its new disk, then
//! the slot is swapped by compare-and-swap (I6), and only the swap makes the old shard garbage, which is collected after the
//! grace for readers. Each unit is verified against its checksum as it is read. A crash leaves either the old place, or the
//! new one and an orphan that the scrub finds.

use futures::StreamExt;
use placement_types::{GroupId, ShardId, TxnId, Waypoint};
use storage_node_proto::api::{MetaError, Owner, ShardError, WriteShard};
use storage_node_proto::command::FiledChunk;

use crate::diagnosis::Need;
use crate::duties::Duties;
use crate::metrics;
use crate::repair::swap;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// The old disk cannot give the shard: it is to be rebuilt from the others.
    #[error("the shard cannot be read where it is: {source}")]
    Source { source: ShardError },
    #[error("the shard cannot be written where it belongs: {source}")]
    Target { source: ShardError },
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// Moves one shard to where `need` says. `false` when the chunk was deleted or changed meanwhile.
pub(crate) async fn move_shard(duties: &Duties, group: GroupId, chunk: &FiledChunk, need: &Need) -> Result<bool, MoveError> {
    let entry = &chunk.entry;
    let (Some(from), Some(to)) = (need.from, need.to) else { return Ok(false) };
    let unknown = |disk| ShardError::NoSuchDisk { disk };
    let source = duties.holders.holder(from).ok_or_else(|| MoveError::Source { source: unknown(from) })?;
    let target = duties.holders.holder(to).ok_or_else(|| MoveError::Target { source: unknown(to) })?;
    let index = u8::try_from(need.index).expect("a profile is narrower than 256");
    let shard = ShardId { chunk: entry.chunk, index };
    let stripes = u32::try_from(entry.profile.stripes(u64::from(entry.bytes))).expect("a chunk has few stripes");
    let owner = Owner { txn: TxnId::random(&duties.env), slot: chunk.shelf.slot() };
    let request = WriteShard { disk: to, shard, owner, profile: entry.profile };

    duties.env.pass(Waypoint::MoveBegun).await;
    let env = duties.env.clone();
    let units = source.shards.read_units(from, shard, 0, stripes).await.map_err(|source| MoveError::Source { source })?;
    let units = units.then(move |unit| env.clone().passed(Waypoint::MoveRead, unit)).boxed();
    let written = duties.env.timeout(duties.limits.move_shard, target.shards.write_shard(request, units)).await;
    match written {
        Ok(Ok(())) => {}
        // A unit that fails its checksum comes out of the stream it was read from, through the write.
        Ok(Err(source @ ShardError::Corrupt { .. })) => return Err(MoveError::Source { source }),
        Ok(Err(source)) => return Err(MoveError::Target { source }),
        Err(elapsed) => return Err(MoveError::Target { source: ShardError::Unreachable { why: elapsed.to_string() } }),
    }
    duties.meter.add(&duties.env, entry.shard_bytes());
    duties.env.pass(Waypoint::MoveCopied).await;
    let moved = swap(duties, group, chunk, need.index, to, owner.txn).await?;
    if moved {
        metrics::shard_moved();
        duties.env.pass(Waypoint::MoveSwapped).await;
    }
    Ok(moved)
}
