//! The shard service: the disks of this node, as peers and the coordinator here see them.
//!
//! It adds nothing to what a disk promises: a shard is acknowledged after its fsync, every unit read was verified. It takes new
//! shards only for disks that are in use: a writer with an older map must not fill what is being drained or was removed. And it
//! acknowledges none when another process may be this node by now: that one's disk lacks it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use placement_map::DiskRole;
use placement_proto::api::MapWatch;
use placement_proto::tenure::Tenure;
use placement_types::{DiskId, Env, ShardId, Waypoint};
use storage_node_proto::api::{ByteStream, DiskReport, ShardApi, ShardError, WriteShard};
use storage_node_proto::damage::Held;
use storage_node_store::{Owner, ReadError, WriteError};

use crate::disks::Disks;
use crate::findings::Findings;
use crate::limits::{READ_BATCH_UNITS, SHARDS_PER_CALL_MAX};
use crate::local_disk::{Called, LocalDisk};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardService {
    pub env: Env,
    pub disks: Arc<Disks>,
    pub maps: MapWatch,
    pub tenure: Tenure,
    pub findings: Findings,
}

impl ShardService {
    fn disk(&self, disk: DiskId) -> Result<&Arc<LocalDisk>, ShardError> {
        self.disks.get(disk).ok_or(ShardError::NoSuchDisk { disk })
    }

    /// Whether this process may acknowledge for the node.
    fn check_tenure(&self) -> Result<(), ShardError> {
        if self.tenure.holds(self.env.monotonic()) {
            return Ok(());
        }
        Err(ShardError::Unreachable { why: "this process did not run for a while and may be replaced".into() })
    }

    /// Whether the newest map here wants new shards on the disk. Before there is one, nobody writes but those who have.
    fn check_in_use(&self, disk: DiskId) -> Result<(), ShardError> {
        let map = self.maps.borrow();
        let Some(map) = map.as_ref() else { return Ok(()) };
        match map.disks.get(&disk).map(|disk| disk.role) {
            Some(DiskRole::InUse) => Ok(()),
            Some(DiskRole::Draining | DiskRole::Joining) => Err(ShardError::Full { disk }),
            None => Err(ShardError::NoSuchDisk { disk }),
        }
    }
}

#[async_trait]
impl ShardApi for ShardService {
    async fn write_shard(&self, request: WriteShard, mut units: ByteStream<ShardError>) -> Result<(), ShardError> {
        let disk = self.disk(request.disk)?;
        self.check_in_use(request.disk)?;
        let owner = Owner { txn: request.owner.txn, slot: request.owner.slot };
        let mut writer = disk.store().writer(request.shard, owner, request.profile);
        // A unit stream that fails drops the writer: an unfinished shard was never there.
        while let Some(unit) = units.next().await {
            writer.append(unit?).await.map_err(shard_error)?;
            self.env.pass(Waypoint::UnitAppended).await;
        }
        writer.finish().await.map_err(shard_error)?;
        self.env.pass(Waypoint::ShardDurable).await;
        // The store takes a repetition as done whoever wrote first. Under another transaction it is not: a scrub that finds
        // the first one unreferenced would delete the shard under the second one's manifest.
        match disk.stat(request.shard).await {
            Called::Answered(Ok(summary)) if summary.txn == owner.txn => self.check_tenure(),
            Called::Answered(Ok(_)) => Err(ShardError::Exists { disk: request.disk, shard: request.shard }),
            Called::Answered(Err(error)) => Err(read_error(request.disk, request.shard, error)),
            Called::Lost => Err(lost()),
        }
    }

    async fn read_units(&self, id: DiskId, shard: ShardId, first: u32, count: u32) -> Result<ByteStream<ShardError>, ShardError> {
        let disk = self.disk(id)?.clone();
        let end = first.checked_add(count).ok_or_else(|| ShardError::BadMessage { why: "the units end beyond u32".into() })?;
        // The first batch is read here: whether the shard is there at all is the call's answer, not its stream's.
        let findings = self.findings.clone();
        let batch = read_batch(&disk, &findings, shard, first, end).await?;
        let next = first + u32::try_from(batch.len()).expect("a batch is small");
        let rest = futures::stream::unfold(Some((disk, findings, next)), move |state| async move {
            let (disk, findings, next) = state?;
            if next == end {
                return None;
            }
            match read_batch(&disk, &findings, shard, next, end).await {
                Ok(batch) => {
                    let next = next + u32::try_from(batch.len()).expect("a batch is small");
                    let units: Vec<_> = batch.into_iter().map(Ok).collect();
                    Some((futures::stream::iter(units), Some((disk, findings, next))))
                }
                Err(error) => Some((futures::stream::iter(vec![Err(error)]), None)),
            }
        });
        Ok(futures::stream::iter(batch.into_iter().map(Ok)).chain(rest.flatten()).boxed())
    }

    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError> {
        if shards.len() > SHARDS_PER_CALL_MAX {
            return Err(ShardError::BadMessage { why: "too many shards in one call".into() });
        }
        self.disk(disk)?.store().delete_shards(shards).await.map_err(shard_error)
    }

    async fn check_shards(&self, id: DiskId, shards: Vec<ShardId>) -> Result<Vec<Held>, ShardError> {
        if shards.len() > SHARDS_PER_CALL_MAX {
            return Err(ShardError::BadMessage { why: "too many shards in one call".into() });
        }
        match self.disk(id)?.held(shards).await {
            Called::Answered(Ok(held)) => Ok(held.into_iter().map(held_shard).collect()),
            Called::Answered(Err(error)) => Err(ShardError::Dead { disk: id, why: error.to_string() }),
            Called::Lost => Err(lost()),
        }
    }

    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError> {
        Ok(self.disks.reports().await)
    }
}

/// Some units from `first` on, at least one unless `first` is `end`.
/// What is missing or bad is noted, to be repaired soon.
async fn read_batch(
    disk: &LocalDisk,
    findings: &Findings,
    shard: ShardId,
    first: u32,
    end: u32,
) -> Result<Vec<Bytes>, ShardError> {
    if first == end {
        return Ok(Vec::new());
    }
    let count = (end - first).min(READ_BATCH_UNITS);
    let mut read = disk.read_units(shard, first, count).await;
    // A bad unit does not spoil those before it: they may be the last there are of their stripes.
    if let Called::Answered(Err(ReadError::Corrupt { .. } | ReadError::Io { .. })) = read
        && count > 1
    {
        read = disk.read_units(shard, first, 1).await;
    }
    match read {
        Called::Answered(units) => units.map_err(|error| {
            let error = read_error(disk.id, shard, error);
            if let ShardError::NotFound { .. } | ShardError::Corrupt { .. } = error {
                findings.suspect(disk.id, shard);
            }
            error
        }),
        Called::Lost => Err(lost()),
    }
}

fn held_shard(held: storage_node_store::Held) -> Held {
    match held {
        storage_node_store::Held::Whole => Held::Whole,
        storage_node_store::Held::Missing => Held::Missing,
        storage_node_store::Held::Damaged => Held::Damaged,
    }
}

fn lost() -> ShardError {
    ShardError::Unreachable { why: "the node is going down".into() }
}

/// What a caller can do about a failed write or delete.
pub(crate) fn shard_error(error: WriteError) -> ShardError {
    let why = error.to_string();
    match error {
        WriteError::Dead { disk, why } => ShardError::Dead { disk, why },
        WriteError::Closed { disk } => ShardError::Dead { disk, why },
        WriteError::Full { disk } => ShardError::Full { disk },
        WriteError::AlreadyExists { disk, shard } => ShardError::Exists { disk, shard },
        WriteError::UnitTooLarge { .. } | WriteError::TooManyUnits { .. } => ShardError::BadMessage { why },
    }
}

fn read_error(disk: DiskId, shard: ShardId, error: ReadError) -> ShardError {
    let why = error.to_string();
    match error {
        ReadError::NotFound { disk, shard } => ShardError::NotFound { disk, shard },
        ReadError::Corrupt { disk, shard, unit } => ShardError::Corrupt { disk, shard, unit },
        // A shard with fewer units than its chunk has stripes is not the shard of the manifest.
        ReadError::NoSuchUnit { disk, shard, unit, .. } => ShardError::Corrupt { disk, shard, unit },
        ReadError::CorruptSeal { disk, shard } => ShardError::Corrupt { disk, shard, unit: 0 },
        ReadError::Io { .. } => ShardError::Corrupt { disk, shard, unit: 0 },
        ReadError::Index { disk, .. } => ShardError::Dead { disk, why },
    }
}
