//! The system group's state machine: a command and what it concerns in, the outcome and the changes out.
//!
//! It is pure, and gets only the rows that a command needs, because the group may hold a hundred thousand buckets. The shell
//! (or [`SystemState`](crate::state::SystemState)) reads them, remembers outcomes by transaction, and writes the changes.
//!
//! - Every change of the map adds one to its epoch; a command that changes nothing leaves it alone.
//! - The ring depends on the disks in use, their weights and zones only. A state (down, full, dead) does not touch it: writes
//!   go around ([`ClusterMap::plan_write`]), and nothing moves for a node that is restarted.
//! - What a node presents of itself takes effect at once (its address, its zone) or waits for an operator (disks, a node that
//!   joins): nothing is ever moved onto a disk that nobody asked for.
//! - A bucket is deleted in two steps (I4). While it is being deleted, it can neither be created nor changed, and only one
//!   deleter at a time is at it: another one's begin is refused until the first began [`DELETE_LEASE`] ago. Otherwise one
//!   could unfence shelves that the other has already found empty, and an object written there would vanish.

use std::collections::BTreeSet;

use placement_types::{Boot, BucketId, BucketName, DiskId, Epoch, GroupId, NodeId, ReplicaId, Timestamp};

use crate::bucket::{Bucket, BucketState};
use crate::cluster_map::{ClusterMap, ClusterSettings, Disk, DiskRole, DiskState, Node, NodeState};
use crate::founding::{check_node, found};
use crate::layout;
use crate::limits::{BOOTS_MAX, BUCKETS_MAX, DELETE_LEASE, DISKS_MAX, INDEX_SHARDS_MAX, NODES_MAX, TEXT_BYTES_MAX, VOTERS_MAX};
use crate::recovery;
use crate::system::{BucketRow, LayoutChange, NewNode, SystemChange, SystemCommand, SystemOutcome};

/// What a command needs to see.
#[derive(Debug, Clone, Copy)]
pub struct SystemView<'a> {
    pub map: Option<&'a ClusterMap>,
    /// The row of the bucket that the command names ([`SystemChange::bucket_name`]), if there is one.
    pub bucket: Option<&'a BucketRow>,
    /// How many buckets there are.
    pub buckets: u64,
}

/// What applying a command changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub map: Option<ClusterMap>,
    pub bucket: Option<BucketChange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketChange {
    Put(BucketRow),
    Remove(BucketName),
}

impl SystemChange {
    /// The bucket whose row applying needs.
    pub fn bucket_name(&self) -> Option<&BucketName> {
        match self {
            SystemChange::CreateBucket { bucket } | SystemChange::SetBucket { bucket } => Some(&bucket.name),
            SystemChange::BeginDeleteBucket { name, .. }
            | SystemChange::FinishDeleteBucket { name, .. }
            | SystemChange::CancelDeleteBucket { name, .. } => Some(name),
            SystemChange::Form { .. }
            | SystemChange::Register { .. }
            | SystemChange::SetNodeState { .. }
            | SystemChange::SetDiskState { .. }
            | SystemChange::Nothing {}
            | SystemChange::Rebalance {}
            | SystemChange::Join { .. }
            | SystemChange::SetLayout { .. }
            | SystemChange::SetVoters { .. }
            | SystemChange::SetSettings { .. }
            | SystemChange::Claim { .. }
            | SystemChange::Recover { .. } => None,
        }
    }
}

/// Applies a command that was not applied before (the caller looks up its transaction).
pub fn apply(view: SystemView<'_>, command: &SystemCommand) -> (SystemOutcome, Changes) {
    let applied = match &command.change {
        SystemChange::Form { cluster, nodes, profile, partitions, groups } => match view.map {
            Some(map) => Err(SystemOutcome::AlreadyFormed { cluster: map.cluster }),
            None => found(*cluster, nodes, *profile, *partitions, *groups).map(changed_map).map_err(malformed),
        },
        SystemChange::Nothing {} => Ok(Changes::default()),
        SystemChange::Register { node } => formed(view).and_then(|map| register(map, node)),
        SystemChange::SetNodeState { node, state } => formed(view).and_then(|map| set_node_state(map, *node, *state)),
        SystemChange::SetDiskState { disk, state } => formed(view).and_then(|map| set_disk_state(map, *disk, *state)),
        SystemChange::Rebalance {} => formed(view).map(rebalance),
        SystemChange::Join { node } => formed(view).and_then(|map| join(map, node)),
        SystemChange::SetLayout { planned_on, change } => formed(view).and_then(|map| set_layout(map, *planned_on, change)),
        SystemChange::SetVoters { group, from, to } => formed(view).and_then(|map| set_voters(map, *group, from, to)),
        SystemChange::SetSettings { settings } => formed(view).map(|map| set_settings(map, *settings)),
        SystemChange::Claim { node, boot, known } => formed(view).and_then(|map| claim(map, *node, *boot, known)),
        SystemChange::Recover { gone, alone } => {
            formed(view).and_then(|map| recovery::recovered(map, gone, alone).map(changed_map).map_err(malformed))
        }
        SystemChange::CreateBucket { bucket } => formed(view).and_then(|_| create_bucket(view, bucket)),
        SystemChange::SetBucket { bucket } => set_bucket(view, bucket),
        SystemChange::BeginDeleteBucket { id, .. } => begin_delete(view, *id, command.time),
        SystemChange::FinishDeleteBucket { id, .. } => finish_delete(view, *id),
        SystemChange::CancelDeleteBucket { id, .. } => cancel_delete(view, *id),
    };
    match applied {
        Ok(changes) => (SystemOutcome::Done, changes),
        Err(refusal) => (refusal, Changes::default()),
    }
}

type Applied = Result<Changes, SystemOutcome>;

fn malformed(why: impl Into<String>) -> SystemOutcome {
    SystemOutcome::Malformed { why: why.into() }
}

fn formed(view: SystemView<'_>) -> Result<&ClusterMap, SystemOutcome> {
    view.map.ok_or(SystemOutcome::NotFormed)
}

fn changed_map(map: ClusterMap) -> Changes {
    Changes { map: Some(map), bucket: None }
}

/// The map after `before`, or no change when it is the same.
fn next_map(before: &ClusterMap, mut after: ClusterMap) -> Changes {
    if after == *before {
        return Changes::default();
    }
    after.epoch = Epoch(before.epoch.0 + 1);
    after.check().expect("every change keeps the map sound");
    changed_map(after)
}

fn register(before: &ClusterMap, new: &NewNode) -> Applied {
    check_node(new).map_err(malformed)?;
    let mut map = before.clone();
    if map.removed_nodes.contains(&new.node) {
        return Err(SystemOutcome::Removed);
    }
    let node = map.nodes.get_mut(&new.node).ok_or(SystemOutcome::UnknownNode)?;
    node.address.clone_from(&new.address);
    node.zone.clone_from(&new.zone);
    present_disks(&mut map, new)?;
    Ok(next_map(before, map))
}

fn join(before: &ClusterMap, new: &NewNode) -> Applied {
    if before.nodes.contains_key(&new.node) || before.removed_nodes.contains(&new.node) {
        return register(before, new);
    }
    check_node(new).map_err(malformed)?;
    if before.nodes.len() >= NODES_MAX {
        return Err(SystemOutcome::Refused { why: format!("the cluster has {NODES_MAX} nodes, the most there may be") });
    }
    let mut map = before.clone();
    let node = Node {
        id: new.node,
        replica: map.next_replica,
        address: new.address.clone(),
        zone: new.zone.clone(),
        state: NodeState::Up,
    };
    map.next_replica = ReplicaId(map.next_replica.0 + 1);
    map.nodes.insert(new.node, node);
    present_disks(&mut map, new)?;
    Ok(next_map(before, map))
}

fn claim(before: &ClusterMap, node: NodeId, boot: Boot, known: &[Boot]) -> Applied {
    if before.removed_nodes.contains(&node) {
        return Err(SystemOutcome::Removed);
    }
    if !before.nodes.contains_key(&node) {
        return Err(SystemOutcome::UnknownNode);
    }
    if known.len() > BOOTS_MAX {
        return Err(malformed(format!("a directory remembers at most {BOOTS_MAX} runs")));
    }
    match before.boots.get(&node) {
        Some(claimed) if *claimed == boot => return Ok(Changes::default()),
        Some(claimed) if !known.contains(claimed) || claimed.number >= boot.number => {
            return Err(SystemOutcome::Superseded { claimed: *claimed });
        }
        Some(_) | None => {}
    }
    let mut map = before.clone();
    map.boots.insert(node, boot);
    Ok(next_map(before, map))
}

/// Files the disks a node says it has. Ones it does not name stay as they are; ones that were removed stay so.
fn present_disks(map: &mut ClusterMap, new: &NewNode) -> Result<(), SystemOutcome> {
    for disk in new.disks.iter().filter(|disk| !map.removed_disks.contains(&disk.disk)) {
        let fresh = || Disk::new(disk.disk, new.node, disk.capacity_bytes, DiskRole::Joining);
        let entry = map.disks.entry(disk.disk).or_insert_with(fresh);
        if entry.node != new.node {
            return Err(SystemOutcome::DiskTaken { disk: disk.disk });
        }
        entry.capacity_bytes = disk.capacity_bytes;
    }
    if map.disks.len() > DISKS_MAX {
        return Err(SystemOutcome::Refused { why: format!("the cluster would have more than {DISKS_MAX} disks") });
    }
    Ok(())
}

fn set_layout(before: &ClusterMap, planned_on: u64, change: &LayoutChange) -> Applied {
    if planned_on != before.layout {
        return Err(SystemOutcome::StalePlan { layout: before.layout });
    }
    match layout::change(before, change) {
        Ok(Some(map)) => Ok(next_map(before, map)),
        Ok(None) => Ok(Changes::default()),
        Err(why) => Err(SystemOutcome::Refused { why }),
    }
}

fn set_settings(before: &ClusterMap, settings: ClusterSettings) -> Changes {
    next_map(before, ClusterMap { settings, ..before.clone() })
}

fn set_voters(before: &ClusterMap, group: GroupId, from: &[NodeId], to: &[NodeId]) -> Applied {
    let mut map = before.clone();
    let voters = map.groups.get_mut(&group).ok_or_else(|| malformed(format!("there is no group {group}")))?;
    if voters != from {
        return Err(SystemOutcome::Refused { why: format!("group {group} has other voters by now") });
    }
    let distinct: BTreeSet<&NodeId> = to.iter().collect();
    if to.is_empty() || to.len() > VOTERS_MAX || distinct.len() != to.len() {
        return Err(malformed(format!("a group has 1 to {VOTERS_MAX} voters, each once")));
    }
    if let Some(unknown) = to.iter().find(|node| !before.nodes.contains_key(node)) {
        return Err(malformed(format!("there is no node {unknown}")));
    }
    *voters = to.to_vec();
    map.moved_groups.insert(group);
    Ok(next_map(before, map))
}

fn rebalance(before: &ClusterMap) -> Changes {
    let mut map = before.clone();
    layout::step_ring(&mut map);
    next_map(before, map)
}

fn set_node_state(before: &ClusterMap, node: NodeId, state: NodeState) -> Applied {
    let mut map = before.clone();
    map.nodes.get_mut(&node).ok_or(SystemOutcome::UnknownNode)?.state = state;
    Ok(next_map(before, map))
}

fn set_disk_state(before: &ClusterMap, disk: DiskId, state: DiskState) -> Applied {
    let mut map = before.clone();
    map.disks.get_mut(&disk).ok_or_else(|| malformed(format!("there is no disk {disk}")))?.state = state;
    Ok(next_map(before, map))
}

fn put(bucket: Bucket, deleting_since: Timestamp) -> Applied {
    Ok(Changes { map: None, bucket: Some(BucketChange::Put(BucketRow { bucket, deleting_since })) })
}

fn check_bucket(bucket: &Bucket) -> Result<(), SystemOutcome> {
    if !(1..=INDEX_SHARDS_MAX).contains(&bucket.index_shards) {
        return Err(malformed(format!("{} index shards are not 1 to {INDEX_SHARDS_MAX}", bucket.index_shards)));
    }
    if bucket.region.len() > TEXT_BYTES_MAX || bucket.owner.len() > TEXT_BYTES_MAX {
        return Err(malformed(format!("region and owner have at most {TEXT_BYTES_MAX} bytes")));
    }
    if bucket.state != BucketState::Active {
        return Err(malformed("only a deletion makes a bucket anything but active"));
    }
    Ok(())
}

fn create_bucket(view: SystemView<'_>, bucket: &Bucket) -> Applied {
    check_bucket(bucket)?;
    match view.bucket {
        Some(row) if row.bucket.state == BucketState::Deleting => Err(SystemOutcome::BucketBusy),
        Some(row) => Err(SystemOutcome::BucketExists { bucket: row.bucket.clone() }),
        None if view.buckets >= BUCKETS_MAX => Err(SystemOutcome::TooManyBuckets),
        None => put(bucket.clone(), Timestamp::default()),
    }
}

/// The row of this incarnation of the bucket.
fn row_of(view: SystemView<'_>, id: BucketId) -> Result<&BucketRow, SystemOutcome> {
    view.bucket.filter(|row| row.bucket.id == id).ok_or(SystemOutcome::NoSuchBucket)
}

fn set_bucket(view: SystemView<'_>, bucket: &Bucket) -> Applied {
    check_bucket(bucket)?;
    let row = row_of(view, bucket.id)?;
    if row.bucket.state == BucketState::Deleting {
        return Err(SystemOutcome::BucketBusy);
    }
    let fixed = |bucket: &Bucket| (bucket.created, bucket.index_shards, bucket.owner.clone(), bucket.region.clone());
    if fixed(&row.bucket) != fixed(bucket) {
        return Err(malformed("creation time, index shards, owner and region of a bucket never change"));
    }
    put(bucket.clone(), row.deleting_since)
}

fn begin_delete(view: SystemView<'_>, id: BucketId, now: Timestamp) -> Applied {
    let row = row_of(view, id)?;
    if row.bucket.state == BucketState::Deleting && now.since(row.deleting_since) < DELETE_LEASE {
        return Err(SystemOutcome::BucketBusy);
    }
    put(Bucket { state: BucketState::Deleting, ..row.bucket.clone() }, now)
}

/// Only what is being deleted can end as deleted: after a cancel, somebody may have written to it.
fn finish_delete(view: SystemView<'_>, id: BucketId) -> Applied {
    let row = row_of(view, id)?;
    match row.bucket.state {
        BucketState::Deleting => Ok(Changes { map: None, bucket: Some(BucketChange::Remove(row.bucket.name.clone())) }),
        BucketState::Active => Err(SystemOutcome::BucketBusy),
    }
}

fn cancel_delete(view: SystemView<'_>, id: BucketId) -> Applied {
    let row = row_of(view, id)?;
    match row.bucket.state {
        BucketState::Deleting => put(Bucket { state: BucketState::Active, ..row.bucket.clone() }, row.deleting_since),
        BucketState::Active => Ok(Changes::default()),
    }
}

/// How a node reports its disks; those it does not name are good.
#[derive(Debug, Clone, Copy)]
pub struct DiskReport<'a> {
    pub full: &'a [DiskId],
    pub dead: &'a [DiskId],
    /// Those of the dead ones that nobody waits for any more.
    pub lost: &'a [DiskId],
}

/// The states that a report asks for and the map does not have yet: the commands that would make it so.
pub fn disk_changes(map: &ClusterMap, node: NodeId, report: DiskReport<'_>) -> Vec<SystemChange> {
    let [full, dead, lost] = [report.full, report.dead, report.lost].map(|list| list.iter().collect::<BTreeSet<&DiskId>>());
    let reported = |disk: &DiskId| match () {
        () if lost.contains(disk) => DiskState::Lost,
        () if dead.contains(disk) => DiskState::Dead,
        () if full.contains(disk) => DiskState::ReadOnly,
        () => DiskState::Good,
    };
    let of_node = map.disks.values().filter(|disk| disk.node == node);
    let changed = of_node.filter(|disk| disk.state != reported(&disk.id));
    changed.map(|disk| SystemChange::SetDiskState { disk: disk.id, state: reported(&disk.id) }).collect()
}
