//! Writes the shards of one chunk: stripe by stripe, all disks at once.
//!
//! A disk is counted only when it said that all its units are fsynced (I2, P11). A disk that fails or lags leaves the write;
//! as long as a quorum remains the write goes on and the slot stays empty for repair. How long anybody waits:
//!
//! | for | at most |
//! |---|---|
//! | a place in a writer's queue while too few others keep up | `unit_push`, per unit |
//! | laggards, while the others are a quorum | `lag_total`, for the whole chunk |
//! | one of them that is not expected to answer | `doubtful` |
//! | a quorum of fsyncs after the last unit | `finish` |
//! | the remaining fsyncs after that | `finish_straggler`, `doubtful` when only such remain |
//!
//! Nothing of a chunk can be complete on a disk before the end was sent, so a write that fails earlier leaves nothing to
//! delete. One that fails later deletes what it may have left; since the caller never uses a chunk id twice (I3), no delete
//! can hit a later write.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use placement_types::{CHUNK_BYTES_MAX, ChunkId, DiskId, Profile, ShardId, Waypoint};
use storage_node_erasure::Coder;
use storage_node_proto::api::{ByteStream, ChunkError, ShardError, Target, WriteShard};

use super::Coordinator;
use super::slot_writer::{Push, SlotWriter};
use super::stripes::Stripes;
use crate::metrics;

/// What a write does about shards it may have left when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// Deletes them: the chunk is new, nobody else writes its shards.
    Delete,
    /// Leaves them to the orphan scrub: another node may be writing, or have committed, the same shards.
    LeaveToScrub,
}

/// Which shards of a chunk to write.
pub(crate) struct ShardSet {
    pub chunk: ChunkId,
    pub profile: Profile,
    /// The chunk's length, when it is known.
    pub bytes: Option<u64>,
    /// By slot; `None` where no shard is to be written.
    pub targets: Vec<Option<Target>>,
    /// How many acknowledgements make the write count.
    pub quorum: usize,
    pub leftovers: Leftovers,
}

/// What was written.
pub(crate) struct StoredShards {
    pub bytes: u64,
    /// BLAKE3 of the chunk.
    pub hash: [u8; 32],
    /// By slot, exactly the disks that acknowledged.
    pub acked: Vec<Option<DiskId>>,
}

/// Codes `body` and writes the shards of `set`; returns when at least the quorum is fsynced.
pub(crate) async fn write_shards(
    coordinator: &Coordinator,
    set: &ShardSet,
    body: ByteStream<ChunkError>,
) -> Result<StoredShards, ChunkError> {
    let mut write = Write::start(coordinator, set);
    let mut stripes = Stripes::new(body);
    let coder = Coder::new(set.profile);
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    while let Some(stripe) = stripes.next().await? {
        bytes += stripe.len() as u64;
        if bytes > set.bytes.unwrap_or(CHUNK_BYTES_MAX) {
            return Err(ChunkError::WrongLength { chunk: set.chunk });
        }
        hasher.update(&stripe);
        write.push(coder.encode(stripe)).await?;
        coordinator.env.pass(Waypoint::StripeSent).await;
    }
    if bytes == 0 || set.bytes.is_some_and(|announced| announced != bytes) {
        return Err(ChunkError::WrongLength { chunk: set.chunk });
    }
    coordinator.env.pass(Waypoint::ChunkSent).await;
    let acked = write.finish().await?;
    coordinator.env.pass(Waypoint::ChunkDurable).await;
    Ok(StoredShards { bytes, hash: hasher.finalize().into(), acked })
}

/// A write under way. Dropping it abandons every shard.
struct Write<'a> {
    coordinator: &'a Coordinator,
    set: &'a ShardSet,
    writers: BTreeMap<usize, SlotWriter>,
    failures: Vec<ShardError>,
    /// What is left of `lag_total`.
    patience: Duration,
}

impl<'a> Write<'a> {
    fn start(coordinator: &'a Coordinator, set: &'a ShardSet) -> Self {
        let mut write =
            Self { coordinator, set, writers: BTreeMap::new(), failures: Vec::new(), patience: coordinator.limits.lag_total };
        for (index, target) in set.targets.iter().enumerate() {
            let Some(Target { disk, owner }) = *target else { continue };
            let Some(holder) = coordinator.holders.holder(disk) else {
                write.fail(index, disk, ShardError::NoSuchDisk { disk });
                continue;
            };
            let request = WriteShard { disk, shard: set.shard(index), owner, profile: set.profile };
            write.writers.insert(index, SlotWriter::start(&coordinator.env, index, holder, request));
        }
        write
    }

    /// Gives unit i of a stripe to slot i's writer, and waits for laggards as long as the table above allows.
    async fn push(&mut self, units: Vec<Bytes>) -> Result<(), ChunkError> {
        let mut lagging = Vec::new();
        let mut ended = Vec::new();
        for (index, writer) in &self.writers {
            match writer.offer(units[*index].clone()) {
                Push::Taken => {}
                Push::Lags(unit) => lagging.push((*index, unit)),
                Push::Failed => ended.push(*index),
            }
        }
        if !lagging.is_empty() {
            ended.extend(self.wait_for_laggards(lagging).await);
        }
        for index in ended {
            let writer = self.writers.remove(&index).expect("it was among the writers");
            let disk = writer.disk;
            // A writer that took no unit has ended, or is stalled: then it is stopped here, not waited for.
            let reason = self.coordinator.env.timeout(Duration::from_millis(10), writer.failure()).await;
            self.fail(index, disk, reason.unwrap_or_else(|_| stalled()));
        }
        self.check_quorum(self.writers.len())
    }

    /// Pushes each unit for as long as may be; returns the slots that did not take theirs.
    async fn wait_for_laggards(&mut self, lagging: Vec<(usize, Bytes)>) -> Vec<usize> {
        let env = self.coordinator.env.clone();
        let quorum_keeps_up = self.writers.len() - lagging.len() >= self.set.quorum;
        let limit = if quorum_keeps_up { self.patience } else { self.coordinator.limits.unit_push };
        let began = env.monotonic();
        let pushes = lagging.into_iter().map(|(index, unit)| {
            let writer = &self.writers[&index];
            let limit = if quorum_keeps_up && writer.doubtful { limit.min(self.coordinator.limits.doubtful) } else { limit };
            let (env, push) = (env.clone(), writer.push(unit));
            async move { (index, env.timeout(limit, push).await) }
        });
        let lost = join_all(pushes).await.into_iter().filter(|(_, taken)| *taken != Ok(true)).map(|(index, _)| index).collect();
        if quorum_keeps_up {
            self.patience = self.patience.saturating_sub(env.monotonic().saturating_sub(began));
        }
        lost
    }

    /// Ends every shard and collects the acknowledgements.
    async fn finish(mut self) -> Result<Vec<Option<DiskId>>, ChunkError> {
        let env = &self.coordinator.env;
        let limits = &self.coordinator.limits;
        let mut acked = vec![None; self.set.profile.width()];
        let mut count = 0;
        let writers = std::mem::take(&mut self.writers);
        let mut pending: BTreeMap<usize, (DiskId, bool)> =
            writers.iter().map(|(index, writer)| (*index, (writer.disk, writer.doubtful))).collect();
        let mut ends: FuturesUnordered<_> =
            writers.into_values().map(|writer| async move { (writer.index, writer.disk, writer.finish().await) }).collect();
        let mut deadline = env.monotonic() + limits.finish;
        while !ends.is_empty() {
            let left = deadline.saturating_sub(env.monotonic());
            let Ok(Some((index, disk, result))) = env.timeout(left, ends.next()).await else { break };
            pending.remove(&index);
            match result {
                Ok(()) => {
                    acked[index] = Some(disk);
                    count += 1;
                    self.coordinator.holders.suspects.clear(disk);
                    env.pass(Waypoint::ShardAcknowledged).await;
                }
                Err(error) => self.fail(index, disk, error),
            }
            if count >= self.set.quorum {
                let doubtful = pending.values().all(|(_, doubtful)| *doubtful);
                let more = if doubtful { limits.doubtful } else { limits.finish_straggler };
                deadline = deadline.min(env.monotonic() + more);
            }
        }
        // Dropping `ends` stops the writers that are late: their shards, if they come to be, are not in the entry.
        drop(ends);
        for (index, (disk, _)) in pending {
            self.fail(index, disk, stalled());
        }
        match self.check_quorum(count) {
            Ok(()) => Ok(acked),
            Err(error) => {
                if self.set.leftovers == Leftovers::Delete {
                    let disks: Vec<_> = self.set.targets.iter().map(|target| target.map(|target| target.disk)).collect();
                    discard(self.coordinator, self.set.chunk, &disks).await;
                }
                Err(error)
            }
        }
    }

    fn fail(&mut self, index: usize, disk: DiskId, error: ShardError) {
        metrics::shard_writer_failed();
        tracing::warn!(shard = %self.set.shard(index), %disk, %error, "a shard was not written");
        if matches!(error, ShardError::Unreachable { .. }) {
            self.coordinator.holders.suspects.add(disk);
        }
        self.failures.push(error);
    }

    fn check_quorum(&self, remaining: usize) -> Result<(), ChunkError> {
        if remaining >= self.set.quorum {
            return Ok(());
        }
        if !self.failures.is_empty() && self.failures.iter().all(|error| matches!(error, ShardError::Full { .. })) {
            return Err(ChunkError::Full);
        }
        Err(ChunkError::NoQuorum {
            chunk: self.set.chunk,
            acked: remaining,
            quorum: self.set.quorum,
            why: self.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })
    }
}

impl ShardSet {
    fn shard(&self, index: usize) -> ShardId {
        ShardId { chunk: self.chunk, index: u8::try_from(index).expect("a profile is narrower than 256") }
    }
}

/// Deletes, as far as can be, every shard of a new chunk that nothing refers to and never will: a failed write may have left
/// it, or its commit was refused. What stays is an orphan for the scrub.
pub(crate) async fn discard(coordinator: &Coordinator, chunk: ChunkId, disks: &[Option<DiskId>]) {
    let deletes = (0u8..).zip(disks).filter_map(|(index, disk)| {
        let holder = coordinator.holders.holder((*disk)?)?;
        let shard = ShardId { chunk, index };
        Some(async move {
            coordinator.env.timeout(coordinator.limits.cleanup, holder.shards.delete_shards(holder.disk, vec![shard])).await
        })
    });
    for result in join_all(deletes).await {
        if !matches!(result, Ok(Ok(()))) {
            tracing::info!(%chunk, "a shard that nothing refers to is left to the scrub");
        }
    }
}

fn stalled() -> ShardError {
    ShardError::Unreachable { why: "it made no progress in the time allowed".into() }
}
