//! The orphan scrub: finds shards on a disk that nothing refers to, and never will.
//!
//! An orphan is what a write leaves that died between a shard's fsync and the commit (P2, P3), a move that lost its swap, or
//! what a disk brings back from the past (D26). Its index is walked page by page; shards older than the lease
//! are sorted by the metadata group of their owner, which decides in three steps (I5):
//!
//! 1. `Referenced`: which of the transactions own data that something refers to. Nearly all; the rest are suspects.
//! 2. `AbortTxns(suspects)` through Raft: from here on none of them can commit.
//! 3. `Referenced` again: a suspect that committed between 1 and 2 is innocent. What is left is deleted.
//!
//! The clock only chooses whom to suspect: a jump may fence a slow PUT, which then fails cleanly, but deletes nothing (C7).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use placement_types::{DiskId, GroupId, ShardId, Timestamp, TxnId, Waypoint};
use storage_node_proto::api::{MetaError, ShardError};
use storage_node_proto::command::{Change, Outcome};
use storage_node_proto::query::{Answer, Query};
use storage_node_store::{Disk, ShardSummary};

use crate::duties::Duties;
use crate::limits::{DELETE_BATCH, SCRUB_PAGE, TXNS_BATCH};
use crate::local_disk::LocalDisk;
use crate::metrics;
use crate::shard_service::shard_error;

#[derive(Debug, thiserror::Error)]
enum ScrubError {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error("the group answered something else: {answer}")]
    Unexpected { answer: String },
}

/// Scrubs a disk, again and again. A pass asks about the shards whose lease ran out since the one before; now and
/// then, and first, about all.
#[derive(Debug, Default)]
pub(crate) struct OrphanScrub {
    /// Shards written before this have been asked about.
    checked: Timestamp,
    /// When the last pass over all shards was complete.
    complete_at: Option<Timestamp>,
}

impl OrphanScrub {
    /// One pass over the disk. Returns how many orphans were deleted.
    pub async fn round(&mut self, duties: &Duties, disk: &LocalDisk) -> usize {
        let now = duties.env.now();
        let lease = u64::try_from(duties.limits.orphan_lease.as_millis()).unwrap_or(u64::MAX);
        let due = Timestamp::from_millis(now.as_millis().saturating_sub(lease));
        // A last pass in the future was made by a clock that was wrong.
        let all = self.complete_at.is_none_or(|at| at > now || now.since(at) >= duties.limits.orphan_full_interval);
        let written = if all { Timestamp::default()..due } else { self.checked..due };
        // So was a shard's time that no right clock can have told: its age is anybody's guess.
        let ahead = all.then(|| now.plus(duties.limits.orphan_lease));
        let mut pass = Pass { duties, written, ahead, deleted: 0, put_off: false };
        pass.scrub(disk.id, disk.store()).await;
        if !pass.put_off {
            self.checked = due;
            if all {
                self.complete_at = Some(now);
            }
        }
        pass.deleted
    }
}

/// A pass under way.
struct Pass<'a> {
    duties: &'a Duties,
    /// When the shards to ask about were written.
    written: Range<Timestamp>,
    /// Those from after this are to be asked about as well.
    ahead: Option<Timestamp>,
    deleted: usize,
    /// Something could not be asked or deleted: the next pass has to look at the same shards.
    put_off: bool,
}

impl Pass<'_> {
    async fn scrub(&mut self, id: DiskId, disk: &Disk) {
        let mut after = None;
        loop {
            let page = match disk.shards(after, SCRUB_PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(disk = %id, %error, "the orphan scrub of a disk was put off");
                    self.put_off = true;
                    return;
                }
            };
            let Some(last) = page.last() else { return };
            after = Some(last.shard);
            for (group, suspects) in self.suspects_by_group(&page) {
                match delete_orphans(self.duties, disk, group, &suspects).await {
                    Ok(count) => self.deleted += count,
                    Err(error) => {
                        tracing::info!(%group, disk = %id, %error, "orphans of a group were put off");
                        self.put_off = true;
                    }
                }
            }
        }
    }

    /// The shards to ask about, by group and transaction.
    fn suspects_by_group(&mut self, page: &[ShardSummary]) -> BTreeMap<GroupId, BTreeMap<TxnId, Vec<ShardId>>> {
        let mut by_group: BTreeMap<GroupId, BTreeMap<TxnId, Vec<ShardId>>> = BTreeMap::new();
        let Some(map) = self.duties.holders.maps.borrow().clone() else {
            self.put_off = true;
            return by_group;
        };
        let is_due = |written: Timestamp| self.written.contains(&written) || self.ahead.is_some_and(|ahead| written > ahead);
        for summary in page.iter().filter(|summary| is_due(summary.written_at)) {
            let group = by_group.entry(map.group_of(summary.slot)).or_default();
            group.entry(summary.txn).or_default().push(summary.shard);
        }
        by_group
    }
}

async fn delete_orphans(
    duties: &Duties,
    disk: &Disk,
    group: GroupId,
    suspects: &BTreeMap<TxnId, Vec<ShardId>>,
) -> Result<usize, ScrubError> {
    let txns: Vec<TxnId> = suspects.keys().copied().collect();
    let mut deleted = 0;
    for batch in txns.chunks(TXNS_BATCH) {
        let orphaned = fence(duties, group, batch).await?;
        let shards: Vec<ShardId> = orphaned.iter().flat_map(|txn| suspects[txn].iter().copied()).collect();
        for batch in shards.chunks(DELETE_BATCH) {
            disk.delete_shards(batch.to_vec()).await.map_err(shard_error)?;
            deleted += batch.len();
            duties.env.pass(Waypoint::OrphansDeleted).await;
        }
    }
    if deleted > 0 {
        metrics::orphans_deleted(deleted);
        tracing::info!(%group, disk = %disk.identity().disk, deleted, "orphaned shards were deleted");
    }
    Ok(deleted)
}

/// Those of the transactions that refer to nothing and can never commit any more.
async fn fence(duties: &Duties, group: GroupId, txns: &[TxnId]) -> Result<Vec<TxnId>, ScrubError> {
    let suspects = unreferenced(duties, group, txns).await?;
    if suspects.is_empty() {
        return Ok(suspects);
    }
    duties.env.pass(Waypoint::OrphansSuspected).await;
    match duties.propose(group, Change::AbortTxns { txns: suspects.clone() }).await? {
        Outcome::Done => {
            duties.env.pass(Waypoint::OrphansFenced).await;
            unreferenced(duties, group, &suspects).await
        }
        outcome => Err(ScrubError::Unexpected { answer: format!("{outcome:?}") }),
    }
}

async fn unreferenced(duties: &Duties, group: GroupId, txns: &[TxnId]) -> Result<Vec<TxnId>, ScrubError> {
    match duties.groups.query(group, &Query::Referenced { txns: txns.to_vec() }).await? {
        Answer::Referenced { txns: referenced } => {
            let referenced: BTreeSet<TxnId> = referenced.into_iter().collect();
            Ok(txns.iter().filter(|txn| !referenced.contains(txn)).copied().collect())
        }
        answer => Err(ScrubError::Unexpected { answer: format!("{answer:?}") }),
    }
}
