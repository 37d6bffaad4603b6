//! Repair: gives degraded chunks the shards they lack.
//!
//! The leader of a group works through its degraded queue. For each chunk it picks a good disk for every empty slot, reads
//! the chunk (any k shards, verified against the chunk's hash), codes it again, writes only the missing shards, and moves
//! each slot by compare-and-swap (I6). Until the swap nothing refers to the new shard; if the chunk was deleted or repaired
//! by somebody else meanwhile, the swap answers so and the new shard is left to the disk's scrub. It is *not* deleted here:
//! the somebody else may have written it to the same disk (P19, X9).

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use placement_map::ClusterMap;
use placement_types::{ByteRange, DiskId, GroupId, NodeId, TxnId};
use storage_node_proto::api::{ChunkApi, ChunkError, MetaError, Owner};
use storage_node_proto::command::{Change, Command, Degraded, Outcome};
use storage_node_proto::object::ChunkEntry;
use storage_node_proto::query::{Answer, Query};

use crate::coordinator::{Leftovers, ShardSet, Target, write_shards};
use crate::duties::Duties;
use crate::limits::{PAGES_PER_ROUND_MAX, QUEUE_PAGE, REPAIRS_AT_ONCE};
use crate::metrics;

#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("the chunk read is not the chunk of the manifest")]
    OtherContent,
}

/// One round over the groups this node leads.
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

async fn repair_or_warn(duties: &Duties, group: GroupId, degraded: Degraded) -> usize {
    match repair_chunk(duties, group, &degraded).await {
        Ok(filled) => filled,
        Err(error) => {
            metrics::repair_failed();
            tracing::warn!(chunk = %degraded.entry.chunk, %error, "a chunk could not be repaired yet");
            0
        }
    }
}

async fn repair_chunk(duties: &Duties, group: GroupId, degraded: &Degraded) -> Result<usize, RepairError> {
    let entry = &degraded.entry;
    let Some(map) = duties.holders.maps.borrow().clone() else { return Ok(0) };
    let slot = degraded.shelf.slot();
    // Each shard is written under the transaction of the command that will move its slot: if that never commits, the scrub
    // can fence the one transaction and delete the one shard.
    let targets: Vec<Option<Target>> = pick_targets(&map, entry)
        .into_iter()
        .map(|disk| Some(Target { disk: disk?, owner: Owner { txn: TxnId::random(&duties.env), slot } }))
        .collect();
    if targets.iter().flatten().next().is_none() {
        return Ok(0);
    }
    let set = ShardSet {
        chunk: entry.chunk,
        profile: entry.profile,
        bytes: Some(u64::from(entry.bytes)),
        targets,
        quorum: 1,
        leftovers: Leftovers::LeaveToScrub,
    };
    let whole = ByteRange::new(0, u64::from(entry.bytes)).expect("zero is the smallest start");
    let body = duties.coordinator.read_chunk(entry.clone(), whole).await?;
    let stored = write_shards(&duties.coordinator, &set, body).await?;
    if stored.hash != entry.hash {
        return Err(RepairError::OtherContent);
    }
    let mut filled = 0;
    for (index, target) in set.targets.iter().enumerate() {
        let (Some(Target { disk, owner }), Ok(index_byte)) = (*target, u8::try_from(index)) else { continue };
        if stored.acked[index] != Some(disk) {
            continue;
        }
        let change = Change::MoveShard {
            shelf: degraded.shelf,
            key: degraded.key.clone(),
            owner: degraded.owner,
            chunk: entry.chunk,
            index: index_byte,
            from: entry.shards[index],
            to: Some(disk),
        };
        let command = Command { txn: owner.txn, time: duties.env.now(), change };
        match duties.groups.mutate(group, &command).await? {
            Outcome::Done => {
                filled += 1;
                metrics::shard_repaired();
            }
            outcome => tracing::info!(chunk = %entry.chunk, index, ?outcome, "a repaired shard was not taken"),
        }
    }
    Ok(filled)
}

/// A disk for every slot that has none, or whose disk was removed from the cluster: the planned one, else another of the plan,
/// else any good disk whose node has fewer than m shards of the chunk. `None` where a slot needs none, or nothing is free.
fn pick_targets(map: &ClusterMap, entry: &ChunkEntry) -> Vec<Option<DiskId>> {
    let plan = map.plan_write(entry.chunk, entry.profile);
    let mut used: BTreeSet<DiskId> = entry.shards.iter().flatten().copied().collect();
    let mut on_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    for disk in used.iter().filter_map(|disk| map.disks.get(disk)) {
        *on_node.entry(disk.node).or_default() += 1;
    }
    let mut targets = vec![None; entry.shards.len()];
    for (index, disk) in entry.shards.iter().enumerate() {
        if disk.is_some_and(|disk| map.disks.contains_key(&disk)) {
            continue;
        }
        let free = |disk: &DiskId| !used.contains(disk) && map.takes_shards(*disk);
        let crowd = |disk: &DiskId| on_node.get(&map.disks[disk].node).copied().unwrap_or(0);
        let planned = plan.get(index).copied().flatten().filter(free);
        let in_plan = || plan.iter().flatten().copied().filter(free).min_by_key(crowd);
        let anywhere = || {
            let others = map.ring.row(entry.chunk).iter().chain(map.disks.keys()).copied();
            others.filter(free).filter(|disk| crowd(disk) < entry.profile.parity()).min_by_key(crowd)
        };
        let target = planned.or_else(in_plan).or_else(anywhere);
        if let Some(target) = target {
            used.insert(target);
            *on_node.entry(map.disks[&target].node).or_default() += 1;
            targets[index] = Some(target);
        }
    }
    targets
}
