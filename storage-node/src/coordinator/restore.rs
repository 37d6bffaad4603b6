//! Gives a chunk shards that it lacks, out of the others.

use futures::StreamExt;
use placement_types::{DiskId, Waypoint};
use storage_node_proto::api::{ChunkError, RestoreShards};

use super::write::{Leftovers, ShardSet, write_shards};
use super::{Coordinator, read};

impl Coordinator {
    /// Reads a chunk, codes it again and writes the shards that it lacks. Returns, by slot, exactly the disks that acknowledged, of
    /// which there is at least one. What was written stays: somebody else may have written and listed the same shard meanwhile.
    pub async fn restore(&self, request: &RestoreShards) -> Result<Vec<Option<DiskId>>, ChunkError> {
        let RestoreShards { source, targets } = request;
        if targets.len() != source.profile.width() {
            return Err(ChunkError::BadMessage { why: "there is not one target to each slot".into() });
        }
        let set = ShardSet {
            chunk: source.chunk,
            profile: source.profile,
            bytes: Some(u64::from(source.bytes)),
            targets: targets.clone(),
            quorum: 1,
            leftovers: Leftovers::LeaveToScrub,
        };
        let env = self.env.clone();
        let body = read::read_chunk(self, source.clone(), source.whole()).await?;
        let body = body.then(move |piece| env.clone().passed(Waypoint::RepairDecoded, piece)).boxed();
        let stored = write_shards(self, &set, body).await?;
        assert_eq!(stored.hash, source.hash, "a chunk that is read as a whole is verified against its hash");
        Ok(stored.acked)
    }
}
