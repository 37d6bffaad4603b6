//! The coordinator: codes chunks onto disks and reads them back.
//!
//! It knows disks only as [`Holders`] that write and read shards, its own node's the same way as a peer's. Placement advises
//! a write (`plan_write`), the entry that a write returns is the truth that a read follows (I7).
//!
//! - `stripes.rs` cuts a body, `slot_writer.rs` writes one shard, `write.rs` all of them;
//! - `read.rs` streams a range of a chunk, `unit_reader.rs` gathers the units of one stripe;
//! - `restore.rs` does both, for shards that a chunk lacks;
//! - `verify.rs` reads all there is of a chunk.

mod read;
mod restore;
mod slot_writer;
mod stripes;
#[cfg(test)]
mod tests;
mod unit_reader;
mod verify;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use placement_map::ClusterMap;
use placement_types::{ByteRange, CHUNK_BYTES_MAX, DiskId, Env, Profile};
use storage_node_proto::api::{ByteStream, ChunkApi, ChunkError, RestoreShards, Target, WriteChunk};
use storage_node_proto::damage::ChunkVerdict;
use storage_node_proto::object::ChunkEntry;

use crate::holders::Holders;
use crate::limits::Limits;
use crate::metrics;
pub(crate) use write::discard;
use write::{Leftovers, ShardSet};

/// Writes and reads chunks. Cheap to clone; has no state of its own.
#[derive(Clone)]
pub(crate) struct Coordinator {
    pub env: Env,
    pub holders: Holders,
    pub limits: Arc<Limits>,
}

#[async_trait]
impl ChunkApi for Coordinator {
    async fn write_chunk(&self, request: WriteChunk, body: ByteStream<ChunkError>) -> Result<ChunkEntry, ChunkError> {
        let began = self.env.monotonic();
        let written = self.write_planned(&request, request.profile.write_quorum(), body).await;
        match &written {
            Ok(entry) => {
                let missing = entry.shards.iter().filter(|shard| shard.is_none()).count();
                metrics::chunk_written(u64::from(entry.bytes), missing, self.env.monotonic().saturating_sub(began));
            }
            Err(_) => metrics::chunk_write_failed(),
        }
        written
    }

    async fn read_chunk(&self, entry: ChunkEntry, range: ByteRange) -> Result<ByteStream<ChunkError>, ChunkError> {
        read::read_chunk(self, entry, range).await
    }

    async fn restore_shards(&self, request: RestoreShards) -> Result<Option<Vec<Option<DiskId>>>, ChunkError> {
        self.restore(&request).await.map(Some)
    }

    async fn verify_chunk(&self, entry: ChunkEntry) -> Result<ChunkVerdict, ChunkError> {
        verify::verify_chunk(self, &entry).await
    }
}

impl Coordinator {
    /// Plans, writes, and makes the manifest entry of exactly those disks that acknowledged (I2), which are at least `quorum`.
    pub async fn write_planned(
        &self,
        request: &WriteChunk,
        quorum: usize,
        body: ByteStream<ChunkError>,
    ) -> Result<ChunkEntry, ChunkError> {
        let plan = self.plan(request)?;
        let job = ShardSet {
            chunk: request.chunk,
            profile: request.profile,
            bytes: request.bytes.map(u64::from),
            targets: plan.into_iter().map(|disk| Some(Target { disk: disk?, owner: request.owner })).collect(),
            quorum,
            leftovers: Leftovers::Delete,
        };
        let stored = write::write_shards(self, &job, body).await?;
        let entry = ChunkEntry {
            chunk: request.chunk,
            bytes: u32::try_from(stored.bytes).expect("the writer bounds a chunk"),
            profile: request.profile,
            hash: stored.hash,
            shards: stored.acked,
        };
        assert!(entry.shards.iter().flatten().count() >= quorum, "a chunk is acknowledged by a quorum of disks");
        Ok(entry)
    }

    fn plan(&self, request: &WriteChunk) -> Result<Vec<Option<DiskId>>, ChunkError> {
        if request.bytes.is_some_and(|bytes| bytes == 0 || u64::from(bytes) > CHUNK_BYTES_MAX) {
            return Err(ChunkError::WrongLength { chunk: request.chunk });
        }
        let quorum = request.profile.write_quorum();
        let none = |acked, why: &str| ChunkError::NoQuorum { chunk: request.chunk, acked, quorum, why: why.into() };
        let Some(map) = self.holders.maps.borrow().clone() else {
            return Err(none(0, "this node has no cluster map yet"));
        };
        let plan = map.plan_write(request.chunk, request.profile);
        check_plan(&plan, request.profile);
        match plan.iter().flatten().count() {
            planned if planned >= quorum => Ok(plan),
            _ if is_full(&map, quorum) => Err(ChunkError::Full),
            planned => Err(none(planned, "too few disks are up")),
        }
    }
}

/// # Panics
/// When the plan has another width than the profile or names a disk twice: then two shards would share a fate unseen.
fn check_plan(plan: &[Option<DiskId>], profile: Profile) {
    let mut disks: Vec<DiskId> = plan.iter().flatten().copied().collect();
    disks.sort_unstable();
    assert!(disks.windows(2).all(|pair| pair[0] != pair[1]), "a plan puts two shards of a chunk on one disk");
    assert_eq!(plan.len(), profile.width(), "a plan has a slot for every shard");
}

/// Whether it is room that lacks: with the disks that only read there would be enough.
fn is_full(map: &ClusterMap, quorum: usize) -> bool {
    let serving = || map.disks.values().filter(|disk| map.serves_shards(disk.id));
    serving().any(|disk| disk.state == placement_map::DiskState::ReadOnly) && serving().count() >= quorum
}
