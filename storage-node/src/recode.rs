//! Re-coding: gives chunks the profile that new chunks get, in the background.
//!
//! A cluster that grew can code wider than it could when it was small. A chunk is read (any k shards, verified against its
//! hash), and written under a fresh chunk id like a new one, all k+m shards fsynced on the disks that the ring says now. Then
//! its manifest entry is swapped for the new one by compare-and-swap ([`Change::Recode`]), in the data record where it is: so
//! ETags, parts, checksums, versions and byte ranges have nothing to do with it, and a part of an upload in progress is
//! re-coded like anything else. Only the swap makes the old shards garbage, which readers under way may use for the grace.
//!
//! The new shards belong to the transaction of the swap. Until it commits nothing refers to them; a crash leaves orphans that
//! the scrub fences and deletes. When the swap is refused, because the object was deleted or one of its shards moved
//! meanwhile, they are deleted at once: the id is fresh, so nobody else can have written or listed a shard of it (I3).
//!
//! The chunk is never worse off on the way: it is left alone unless every shard of the new coding is there.
//!
//! The same is done to a chunk of the right profile with a shard that has nowhere to go ([`crate::diagnosis`]).

use placement_map::ClusterMap;
use placement_types::{ChunkId, GroupId, TxnId, Waypoint};
use storage_node_proto::api::{ChunkApi, ChunkError, MetaError, Owner, WriteChunk};
use storage_node_proto::command::{Change, Command, FiledChunk, Outcome};

use crate::coordinator::discard;
use crate::duties::Duties;
use crate::metrics;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecodeError {
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("the chunk read is not the chunk of the manifest")]
    OtherContent,
}

/// Codes a chunk anew by this map. `false` when it was deleted or changed meanwhile, or has to wait for room.
pub(crate) async fn recode(duties: &Duties, group: GroupId, chunk: &FiledChunk, map: &ClusterMap) -> Result<bool, RecodeError> {
    let (old, profile) = (&chunk.entry, map.profile);
    // Another id next time: then it is other disks that need the room.
    let id = ChunkId::random(&duties.env);
    if duties.room.is_short(duties, &map.plan_write(id, profile)).await {
        tracing::info!(chunk = %old.chunk, "a chunk is not coded anew yet: the disks for it are nearly full");
        return Ok(false);
    }
    let txn = TxnId::random(&duties.env);
    let owner = Owner { txn, slot: chunk.shelf.slot() };
    let request = WriteChunk { chunk: id, owner, profile, bytes: Some(old.bytes) };
    duties.env.pass(Waypoint::RecodeBegun).await;
    let body = duties.coordinator.read_chunk(old.clone(), old.whole()).await?;
    let new = duties.coordinator.write_planned(&request, profile.width(), body).await?;
    duties.meter.add(&duties.env, new.shard_bytes() * profile.width() as u64);
    if new.hash != old.hash {
        discard(&duties.coordinator, new.chunk, &new.shards).await;
        return Err(RecodeError::OtherContent);
    }
    duties.env.pass(Waypoint::RecodeWritten).await;
    let change =
        Change::Recode { shelf: chunk.shelf, key: chunk.key.clone(), owner: chunk.owner, from: old.clone(), to: new.clone() };
    // Without an outcome nobody knows whether the new shards are in use: then they are the scrub's business.
    let outcome = duties.groups.mutate(group, &Command { txn, time: duties.env.now(), change }).await?;
    if outcome == Outcome::Done {
        metrics::chunk_recoded();
        duties.env.pass(Waypoint::RecodeSwapped).await;
        return Ok(true);
    }
    tracing::info!(chunk = %old.chunk, ?outcome, "a chunk's new coding was not taken");
    discard(&duties.coordinator, new.chunk, &new.shards).await;
    Ok(false)
}
