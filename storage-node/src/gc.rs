//! Garbage collection: deletes the shards of chunks that nothing refers to any more.
//!
//! The leader of a group goes through its gc queue: entries older than the grace (readers under way, X3), shard by shard id
//! (I5), then `FinishGc` for the chunks whose shards are gone from every disk. Everything is idempotent: a crash between the
//! delete and the command only repeats the delete. A chunk with a disk that cannot be reached stays queued until the disk is
//! back or was removed; the round goes on behind it.
//!
//! The time of an entry is that of whoever dropped the chunk. One that is dated ahead says nothing of its age: its grace counts
//! from when this leader first saw it ([`Ahead`]). Else one hour of a clock that is a year ahead would keep for a year what was
//! deleted in it (C7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use placement_types::{ChunkId, DiskId, GroupId, ShardId, Timestamp, Waypoint};
use storage_node_proto::api::MetaError;
use storage_node_proto::command::{Change, Garbage};
use storage_node_proto::query::{Answer, Query};

use crate::duties::Duties;
use crate::limits::{AHEAD_MAX, DELETE_BATCH, PAGES_PER_ROUND_MAX, QUEUE_PAGE};
use crate::metrics;

/// What is dated ahead, by group, and since when that is known here, in monotonic time.
#[derive(Default)]
pub(crate) struct Ahead {
    seen: BTreeMap<GroupId, BTreeMap<(Timestamp, ChunkId), Duration>>,
}

/// One round over the groups this node leads.
pub(crate) async fn round(duties: &Duties, ahead: &mut Ahead) {
    let led = duties.leadership.led_groups();
    ahead.seen.retain(|group, _| led.contains(group));
    for group in led {
        let collected = async {
            collect(duties, group).await?;
            ahead.collect(duties, group).await
        };
        if let Err(error) = collected.await {
            tracing::info!(%group, %error, "garbage collection of a group was put off");
        }
    }
}

/// Goes once through a group's queue. Returns how many chunks left it.
pub(crate) async fn collect(duties: &Duties, group: GroupId) -> Result<usize, MetaError> {
    let grace = u64::try_from(duties.limits.gc_grace.as_millis()).unwrap_or(u64::MAX);
    let before = Timestamp::from_millis(duties.env.now().as_millis().saturating_sub(grace));
    let mut round = Round::default();
    let (mut after, mut collected) = (None, 0);
    for _ in 0..PAGES_PER_ROUND_MAX {
        let garbage = list(duties, group, before, after).await?;
        let Some(last) = garbage.last() else { break };
        after = Some((last.since, last.entry.chunk));
        duties.env.pass(Waypoint::GarbageListed).await;
        let chunks = round.delete(duties, &garbage).await;
        if !chunks.is_empty() {
            collected += chunks.len();
            // Not beyond what was seen: a chunk may have more garbage on the pages to come.
            let seen = before.min(last.since.plus(Duration::from_millis(1)));
            finish(duties, group, chunks.len(), Change::FinishGc { chunks, before: seen }).await?;
        }
        if garbage.len() < QUEUE_PAGE as usize {
            break;
        }
    }
    Ok(collected)
}

async fn list(
    duties: &Duties,
    group: GroupId,
    before: Timestamp,
    after: Option<(Timestamp, ChunkId)>,
) -> Result<Vec<Garbage>, MetaError> {
    let query = Query::Garbage { before, after, limit: QUEUE_PAGE };
    let Answer::Garbage { garbage } = duties.groups.query(group, &query).await? else {
        return Err(MetaError::BadMessage { why: "the answer is not about garbage".into() });
    };
    Ok(garbage)
}

/// Takes out of the queue what the disks do not have any more, of so many chunks.
async fn finish(duties: &Duties, group: GroupId, chunks: usize, change: Change) -> Result<(), MetaError> {
    metrics::garbage_collected(chunks);
    duties.env.pass(Waypoint::GarbageDeleted).await;
    duties.propose(group, change).await?;
    duties.env.pass(Waypoint::GarbageFinished).await;
    Ok(())
}

impl Ahead {
    /// Goes once through what is dated ahead in a group's queue, by more than a grace. Returns how many rows left it.
    pub async fn collect(&mut self, duties: &Duties, group: GroupId) -> Result<usize, MetaError> {
        let grace = duties.limits.gc_grace;
        let key = |garbage: &Garbage| (garbage.since, garbage.entry.chunk);
        let seen = self.seen.entry(group).or_default();
        let mut round = Round::default();
        let (mut listed, mut collected) = (BTreeMap::new(), 0);
        let mut after = Some((duties.env.now().plus(grace), ChunkId::from_u128(0)));
        while listed.len() < AHEAD_MAX {
            let mut garbage = list(duties, group, Timestamp::from_millis(u64::MAX), after).await?;
            let Some(last) = garbage.last() else { break };
            let now = duties.env.monotonic();
            after = Some(key(last));
            let more = garbage.len() >= QUEUE_PAGE as usize;
            duties.env.pass(Waypoint::GarbageListed).await;
            listed.extend(garbage.iter().map(|one| (key(one), seen.get(&key(one)).copied().unwrap_or(now))));
            garbage.retain(|one| now.saturating_sub(listed[&key(one)]) >= grace);
            let chunks: BTreeSet<ChunkId> = round.delete(duties, &garbage).await.into_iter().collect();
            let gone: BTreeSet<_> = garbage.iter().map(key).filter(|(_, chunk)| chunks.contains(chunk)).collect();
            if !gone.is_empty() {
                collected += gone.len();
                let rows = gone.into_iter().map(|(since, chunk)| (chunk, since)).collect();
                finish(duties, group, chunks.len(), Change::FinishGcRows { rows }).await?;
            }
            if !more {
                break;
            }
        }
        *seen = listed;
        Ok(collected)
    }
}

/// What a round has learnt so far.
#[derive(Default)]
struct Round {
    /// Disks that failed a call: not asked again in this round.
    unreachable: BTreeSet<DiskId>,
    /// Chunks with garbage on such a disk. `FinishGc` drops all garbage of a chunk, so none of these may be finished
    /// (nor are single rows of it).
    waiting: BTreeSet<ChunkId>,
}

impl Round {
    /// Deletes, all disks at once, and returns the chunks of which nothing is left.
    async fn delete(&mut self, duties: &Duties, garbage: &[Garbage]) -> Vec<ChunkId> {
        let mut by_disk: BTreeMap<DiskId, Vec<ShardId>> = BTreeMap::new();
        for Garbage { entry, .. } in garbage {
            for (index, disk) in entry.shards.iter().enumerate() {
                let (Some(disk), Ok(index)) = (*disk, u8::try_from(index)) else { continue };
                by_disk.entry(disk).or_default().push(ShardId { chunk: entry.chunk, index });
            }
        }
        by_disk.retain(|disk, _| !self.unreachable.contains(disk));
        let deletes = by_disk.into_iter().map(|(disk, shards)| async move { (disk, delete_on(duties, disk, shards).await) });
        let failed = join_all(deletes).await.into_iter().filter(|(_, gone)| !gone).map(|(disk, _)| disk);
        self.unreachable.extend(failed);

        let stuck = |entry: &Garbage| entry.entry.shards.iter().flatten().any(|disk| self.unreachable.contains(disk));
        self.waiting.extend(garbage.iter().filter(|entry| stuck(entry)).map(|entry| entry.entry.chunk));
        let finished: BTreeSet<ChunkId> = garbage.iter().map(|garbage| garbage.entry.chunk).collect();
        finished.difference(&self.waiting).copied().collect()
    }
}

/// Whether the shards are gone, durably. On a disk that was removed from the cluster they count as gone (I7).
async fn delete_on(duties: &Duties, disk: DiskId, shards: Vec<ShardId>) -> bool {
    if duties.holders.is_removed(disk) {
        return true;
    }
    let Some(holder) = duties.holders.holder(disk) else { return false };
    for batch in shards.chunks(DELETE_BATCH) {
        let deleted = duties.env.timeout(duties.limits.call, holder.shards.delete_shards(disk, batch.to_vec())).await;
        if !matches!(deleted, Ok(Ok(()))) {
            tracing::debug!(%disk, "garbage waits for a disk");
            return false;
        }
    }
    duties.env.pass(Waypoint::GarbageLeftDisk).await;
    true
}
