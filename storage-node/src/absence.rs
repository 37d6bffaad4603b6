//! Which shards that manifests name are not on their disks.
//!
//! A manifest entry is the truth about where a shard *should* be; a disk may have lost it all the same: a segment file or rows
//! of its index are gone, the shard rotted, the disk was restored from an old image. So a survey asks the disks about the
//! shards it walks over ([`ShardApi::check_shards`](storage_node_proto::api::ShardApi::check_shards), in batches; it reads
//! indexes, not shards). Everything is asked about in the first survey of a leader and once in each cycle of the scrub; in
//! between, only what there is a reason to doubt: disks that came back or were reported, and chunks with a shard that was
//! reported ([`crate::findings`]).
//!
//! A shard that is absent is a *lost* one to whoever judges the chunk ([`Found::as_found`]). When its own disk can take it
//! again it is rebuilt there. That changes no manifest: the shard that is written is, to the byte and with the transaction it
//! belongs to, the one the manifest names (I3), and a write whose chunk is gone meanwhile leaves an orphan like any other.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_types::{ChunkId, DiskId, ShardId, TxnId};
use storage_node_proto::api::ShardError;
use storage_node_proto::command::FiledChunk;
use storage_node_proto::damage::{DamageReport, Held};
use storage_node_proto::query::SurveyedChunk;

use crate::duties::Duties;
use crate::holders::Standing;
use crate::limits::{CHECK_BATCH, REPORTED_CHUNKS_MAX};

/// What surveys should ask about, as nodes report it. Numbered, so that each group's next survey knows what is new to it.
#[derive(Default)]
pub(crate) struct Reports {
    state: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    newest: u64,
    disks: BTreeMap<DiskId, u64>,
    chunks: BTreeMap<ChunkId, u64>,
    /// Too much was reported to be listed.
    everything: u64,
}

impl Reports {
    pub fn note(&self, report: &DamageReport) {
        let mut noted = self.state.lock();
        noted.newest += 1;
        let number = noted.newest;
        match report {
            DamageReport::Disk { disk } => drop(noted.disks.insert(*disk, number)),
            DamageReport::Shards { shards } if noted.chunks.len() + shards.len() > REPORTED_CHUNKS_MAX => {
                noted.everything = number;
                noted.chunks.clear();
            }
            DamageReport::Shards { shards } => noted.chunks.extend(shards.iter().map(|shard| (shard.chunk, number))),
        }
    }

    pub fn newest(&self) -> u64 {
        self.state.lock().newest
    }

    /// What was reported after `seen`.
    pub fn since(&self, seen: u64) -> Inquiry {
        let noted = self.state.lock();
        if noted.everything > seen {
            return Inquiry::everything();
        }
        Inquiry {
            everything: false,
            disks: noted.disks.iter().filter(|(_, number)| **number > seen).map(|(disk, _)| *disk).collect(),
            chunks: noted.chunks.iter().filter(|(_, number)| **number > seen).map(|(chunk, _)| *chunk).collect(),
        }
    }

    /// Every group has seen these.
    pub fn forget(&self, seen: u64) {
        let mut noted = self.state.lock();
        noted.disks.retain(|_, number| *number > seen);
        noted.chunks.retain(|_, number| *number > seen);
    }
}

/// Which shards a survey asks about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inquiry {
    pub everything: bool,
    pub disks: BTreeSet<DiskId>,
    pub chunks: BTreeSet<ChunkId>,
}

impl Inquiry {
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub fn extend(&mut self, other: Inquiry) {
        self.everything |= other.everything;
        self.disks.extend(other.disks);
        self.chunks.extend(other.chunks);
    }

    /// What is absent is asked about again. Where that is much, its disks are as a whole.
    pub fn add(&mut self, found: &Found) {
        let entry = &found.chunk.filed.entry;
        if found.absent.is_empty() {
            return;
        }
        if self.chunks.len() < REPORTED_CHUNKS_MAX {
            self.chunks.insert(entry.chunk);
        } else {
            self.disks.extend(found.absent.iter().filter_map(|index| entry.shards[usize::from(*index)]));
        }
    }

    fn wants(&self, disk: DiskId, chunk: ChunkId) -> bool {
        self.everything || self.disks.contains(&disk) || self.chunks.contains(&chunk)
    }
}

/// A chunk as a survey found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// As the metadata has it.
    pub chunk: SurveyedChunk,
    /// Slots whose disks have not got the shard.
    pub absent: Vec<u8>,
}

impl Found {
    /// The chunk with what is absent left out: what there is to judge and to read. A disk that lost a shard still has its
    /// place in the manifest, so that no other shard of the chunk may go there.
    pub fn as_found(&self) -> Cow<'_, SurveyedChunk> {
        // As nearly every chunk of a survey is.
        if self.absent.is_empty() {
            return Cow::Borrowed(&self.chunk);
        }
        let mut chunk = self.chunk.clone();
        for index in &self.absent {
            let Some(disk) = chunk.filed.entry.shards[usize::from(*index)].take() else { continue };
            let others = (0..chunk.filed.entry.shards.len()).filter_map(|other| u8::try_from(other).ok());
            chunk.departed.extend(others.filter(|other| other != index).map(|other| (other, disk)));
        }
        Cow::Owned(chunk)
    }
}

/// The transaction that a shard belongs to: a rebuilt copy must have the same.
pub(crate) fn writer_of(chunk: &FiledChunk, movers: &[(u8, TxnId)], index: usize) -> TxnId {
    let mover = movers.iter().find(|(moved, _)| usize::from(*moved) == index);
    mover.map_or(chunk.owner, |(_, txn)| *txn)
}

/// What the disks answered.
#[derive(Default)]
pub(crate) struct Replies {
    absent: BTreeMap<ChunkId, Vec<u8>>,
    /// Disks that did not answer: to be asked again.
    pub silent: BTreeSet<DiskId>,
}

impl Replies {
    pub fn absent(&self, chunk: ChunkId) -> Vec<u8> {
        self.absent.get(&chunk).cloned().unwrap_or_default()
    }
}

/// Asks about the shards of a page, all disks at once. Nothing is absent that a disk does not itself say is.
pub(crate) async fn ask(duties: &Duties, map: &ClusterMap, inquiry: &Inquiry, page: &[SurveyedChunk]) -> Replies {
    let mut by_disk: BTreeMap<DiskId, Vec<ShardId>> = BTreeMap::new();
    for chunk in page {
        let entry = &chunk.filed.entry;
        for (index, disk) in (0u8..).zip(&entry.shards) {
            let Some(disk) = disk.filter(|disk| map.serves_shards(*disk) && inquiry.wants(*disk, entry.chunk)) else { continue };
            by_disk.entry(disk).or_default().push(ShardId { chunk: entry.chunk, index });
        }
    }
    let asked = by_disk.into_iter().map(|(disk, shards)| async move { (disk, check(duties, disk, &shards).await, shards) });
    let mut replies = Replies::default();
    for (disk, held, shards) in join_all(asked).await {
        match held {
            Ok(held) => {
                for (shard, _) in shards.iter().zip(held).filter(|(_, held)| *held != Held::Whole) {
                    replies.absent.entry(shard.chunk).or_default().push(shard.index);
                }
            }
            Err(error) => {
                tracing::info!(%disk, %error, "a disk did not say which shards it has");
                replies.silent.insert(disk);
            }
        }
    }
    replies
}

async fn check(duties: &Duties, disk: DiskId, shards: &[ShardId]) -> Result<Vec<Held>, ShardError> {
    let unreachable = |why: &str| ShardError::Unreachable { why: why.into() };
    let holder = duties.holders.holder(disk).filter(|holder| holder.standing != Standing::Doubtful);
    let holder = holder.ok_or_else(|| unreachable("it is not expected to answer"))?;
    let mut held = Vec::with_capacity(shards.len());
    for batch in shards.chunks(CHECK_BATCH) {
        let checked = duties.env.timeout(duties.limits.call, holder.shards.check_shards(disk, batch.to_vec())).await;
        let answer = checked.map_err(|_| unreachable("no answer in time"))??;
        if answer.len() != batch.len() {
            return Err(ShardError::BadMessage { why: "another number of answers than of shards".into() });
        }
        held.extend(answer);
    }
    Ok(held)
}
