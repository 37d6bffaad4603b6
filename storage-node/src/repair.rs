//! Repair: gives chunks the shards they lack.
//!
//! For each chunk it picks a disk for every slot that has none to be had ([`crate::diagnosis`]). The node of the first of these
//! disks, or this one, reads the chunk (any k shards, verified against the chunk's hash), codes it again and writes only the
//! missing shards; then each slot is moved by compare-and-swap (I6). Until the swap nothing refers to the new shard; if the chunk
//! was deleted or repaired by somebody else meanwhile, the swap answers so and the new shard is left to the disk's scrub. It is
//! *not* deleted here: the somebody else may have written it to the same disk (P19, X9).
//!
//! Chunks come from two sides: the degraded queue has those that were written with too few shards, soon after; the survey
//! ([`crate::survey`]) finds those that lost some since.

use futures::StreamExt;
use placement_types::{DiskId, GroupId, TxnId, Waypoint};
use storage_node_proto::api::{ChunkError, MetaError, Owner, RestoreShards, Target};
use storage_node_proto::command::{Change, Command, FiledChunk, Outcome};
use storage_node_proto::query::{Answer, Query};

use crate::absence::writer_of;
use crate::diagnosis::{Cause, Need, diagnose};
use crate::duties::Duties;
use crate::limits::{PAGES_PER_ROUND_MAX, QUEUE_PAGE, REPAIRS_AT_ONCE};
use crate::metrics;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RepairError {
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// One round over the degraded queues of the groups this node leads.
pub(crate) async fn round(duties: &Duties) {
    for group in duties.leadership.led_groups() {
        if let Err(error) = repair_group(duties, group).await {
            tracing::info!(%group, %error, "repair of a group was put off");
        }
    }
}

/// Goes once through a group's degraded queue. Returns how many slots were filled.
pub(crate) async fn repair_group(duties: &Duties, group: GroupId) -> Result<usize, MetaError> {
    let (mut after, mut filled) = (None, 0);
    for _ in 0..PAGES_PER_ROUND_MAX {
        let query = Query::Degraded { after, limit: QUEUE_PAGE };
        let Answer::Degraded { chunks } = duties.groups.query(group, &query).await? else {
            return Err(MetaError::BadMessage { why: "the answer is not about degraded chunks".into() });
        };
        let Some(last) = chunks.last() else { break };
        after = Some(last.entry.chunk);
        let more = chunks.len() >= QUEUE_PAGE as usize;
        let repairs = chunks.into_iter().map(|degraded| repair_or_warn(duties, group, degraded));
        let repaired: Vec<usize> = futures::stream::iter(repairs).buffer_unordered(REPAIRS_AT_ONCE).collect().await;
        filled += repaired.into_iter().sum::<usize>();
        if !more {
            break;
        }
    }
    Ok(filled)
}

async fn repair_or_warn(duties: &Duties, group: GroupId, degraded: FiledChunk) -> usize {
    let Some(map) = duties.holders.maps.borrow().clone() else { return 0 };
    let diagnosis = diagnose(&map, &degraded.entry, &[]);
    let needs: Vec<Need> = diagnosis.placed(Cause::Lost).copied().collect();
    if needs.is_empty() {
        return 0;
    }
    match duties.throttle.background(rebuild(duties, group, &degraded, &[], &needs)).await {
        Ok(filled) => filled,
        Err(error) => {
            metrics::repair_failed();
            tracing::warn!(chunk = %degraded.entry.chunk, %error, "a chunk could not be repaired yet");
            0
        }
    }
}

/// Rebuilds the shards that are needed, each with a disk to go to. Returns how many slots were filled.
///
/// A shard whose need is the disk that the manifest names already is absent there. It is written once more under the
/// transaction it belongs to (`movers` has those that are not the record's own), and there is no slot to swap.
pub(crate) async fn rebuild(
    duties: &Duties,
    group: GroupId,
    chunk: &FiledChunk,
    movers: &[(u8, TxnId)],
    needs: &[Need],
) -> Result<usize, RepairError> {
    let entry = &chunk.entry;
    let in_place = |need: &Need| need.to.is_some() && need.to == entry.shards[need.index];
    // A shard that takes the place of another is written under the transaction of the command that will move its slot: if that
    // never commits, the scrub can fence the one transaction and delete the one shard. One for an empty slot belongs to the
    // chunk's own transaction. The disk may have it already: from the write itself, whose answer was lost, or from a repair that
    // died before its swap. Under another transaction it would be refused there as long as the object lives.
    let mut targets: Vec<Option<Target>> = vec![None; entry.shards.len()];
    for need in needs {
        let txn = match entry.shards[need.index] {
            Some(_) if in_place(need) => writer_of(chunk, movers, need.index),
            Some(_) => TxnId::random(&duties.env),
            None => chunk.owner,
        };
        let owner = Owner { txn, slot: chunk.shelf.slot() };
        targets[need.index] = need.to.map(|disk| Target { disk, owner });
    }
    duties.env.pass(Waypoint::RepairBegun).await;
    // What is left of a damaged shard is read only if it does not go without.
    let mut request = RestoreShards { source: entry.clone(), targets };
    needs.iter().filter(|need| in_place(need)).for_each(|need| request.source.shards[need.index] = None);
    let acked = match restore(duties, &request).await {
        Err(_) if request.source != *entry => {
            request.source = entry.clone();
            restore(duties, &request).await?
        }
        acked => acked?,
    };
    duties.env.pass(Waypoint::RepairWritten).await;
    let mut filled = 0;
    for need in needs {
        let Some(Target { disk, owner }) = request.targets[need.index] else { continue };
        if acked[need.index] != Some(disk) {
            continue;
        }
        duties.meter.add(&duties.env, entry.shard_bytes());
        // The chunk's own transaction has had its outcome.
        let txn = if owner.txn == chunk.owner { TxnId::random(&duties.env) } else { owner.txn };
        if in_place(need) || swap(duties, group, chunk, need.index, disk, txn).await? {
            filled += 1;
            duties.env.pass(Waypoint::RepairSwapped).await;
            metrics::shard_repaired();
        }
    }
    Ok(filled)
}

/// Has shards restored by the node that gets the first of them: so the work of one group is spread over all nodes, and the shard
/// need not travel once more. Done here when that node does not lend a hand or does not manage, and when clients are served here:
/// what is done slowly for their sake must not go on elsewhere at full speed.
async fn restore(duties: &Duties, request: &RestoreShards) -> Result<Vec<Option<DiskId>>, ChunkError> {
    if let Some(Target { disk, .. }) = request.targets.iter().flatten().next()
        && !duties.throttle.is_busy()
        && let Some(peer) = duties.holders.peer(*disk)
    {
        let restored = tokio::select! {
            restored = peer.restore_shards(request.clone()) => restored,
            () = duties.holders.given_up(*disk) => Ok(None),
        };
        match restored {
            Ok(Some(acked)) if acked.len() == request.targets.len() => return Ok(acked),
            Ok(_) => {}
            Err(error) => tracing::debug!(chunk = %request.source.chunk, %disk, %error, "a peer did not restore a shard"),
        }
    }
    duties.coordinator.restore(request).await
}

/// Gives a slot to the disk on which its shard was written and fsynced, under `txn` or, where the slot was empty, under the
/// chunk's own transaction; `false` when the slot is not what was
/// read any more, and the new shard is an orphan.
pub(crate) async fn swap(
    duties: &Duties,
    group: GroupId,
    chunk: &FiledChunk,
    index: usize,
    to: DiskId,
    txn: TxnId,
) -> Result<bool, MetaError> {
    let change = Change::MoveShard {
        shelf: chunk.shelf,
        key: chunk.key.clone(),
        owner: chunk.owner,
        chunk: chunk.entry.chunk,
        index: u8::try_from(index).expect("a profile is narrower than 256"),
        from: chunk.entry.shards[index],
        to: Some(to),
    };
    let command = Command { txn, time: duties.env.now(), change };
    let outcome = duties.groups.mutate(group, &command).await?;
    if outcome != Outcome::Done {
        tracing::info!(chunk = %chunk.entry.chunk, index, ?outcome, "a shard's new place was not taken");
    }
    Ok(outcome == Outcome::Done)
}
