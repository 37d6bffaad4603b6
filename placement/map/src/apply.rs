//! The system group's state machine: a command and what it concerns in, the outcome and the changes out.
//!
//! It is pure, and gets only the rows that a command needs, because the group may hold a hundred thousand buckets. The shell
//! (or [`SystemState`](crate::state::SystemState)) reads them, remembers outcomes by transaction, and writes the changes.
//!
//! - Every change of the map adds one to its epoch; a command that changes nothing leaves it alone.
//! - The ring depends on disks, capacities and zones only. A state (down, full, dead) does not touch it: writes go around
//!   ([`ClusterMap::plan_write`]), and nothing moves for a node that is restarted.
//! - A bucket is deleted in two steps (I4). While it is being deleted, it can neither be created nor changed, and only one
//!   deleter at a time is at it: another one's begin is refused until the first began [`DELETE_LEASE`] ago. Otherwise one
//!   could unfence shelves that the other has already found empty, and an object written there would vanish.

use std::collections::BTreeSet;

use placement_types::{BucketId, BucketName, DiskId, Epoch, NodeId, Timestamp};

use crate::assign;
use crate::bucket::{Bucket, BucketState};
use crate::cluster_map::{ClusterMap, Disk, DiskState, NodeState};
use crate::founding::{check_node, found};
use crate::limits::{BUCKETS_MAX, DELETE_LEASE, DISKS_MAX, INDEX_SHARDS_MAX, TEXT_BYTES_MAX};
use crate::system::{BucketRow, NewNode, SystemChange, SystemCommand, SystemOutcome};
use crate::topology::Topology;

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
            | SystemChange::Rebalance {} => None,
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
    let node = map.nodes.get_mut(&new.node).ok_or(SystemOutcome::UnknownNode)?;
    node.address.clone_from(&new.address);
    node.zone.clone_from(&new.zone);
    let mut grown = false;
    for disk in &new.disks {
        let entry = map.disks.entry(disk.disk).or_insert_with(|| {
            grown = true;
            Disk { id: disk.disk, node: new.node, capacity_bytes: disk.capacity_bytes, state: DiskState::Good }
        });
        if entry.node != new.node {
            return Err(SystemOutcome::DiskTaken { disk: disk.disk });
        }
        entry.capacity_bytes = disk.capacity_bytes;
    }
    if map.disks.len() > DISKS_MAX {
        return Err(malformed(format!("the cluster would have more than {DISKS_MAX} disks")));
    }
    if grown {
        rebuild_ring(&mut map);
    }
    Ok(next_map(before, map))
}

fn rebalance(before: &ClusterMap) -> Changes {
    let mut map = before.clone();
    rebuild_ring(&mut map);
    next_map(before, map)
}

fn rebuild_ring(map: &mut ClusterMap) {
    let topology = Topology::of(&map.nodes, &map.disks);
    map.ring = assign::build(map.ring.rows.len(), map.profile, &topology, Some(&map.ring));
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

/// The states that reports ask for and the map does not have yet: the commands that would make it so.
pub fn disk_changes(map: &ClusterMap, node: NodeId, full: &[DiskId], dead: &[DiskId]) -> Vec<SystemChange> {
    let (full, dead): (BTreeSet<&DiskId>, BTreeSet<&DiskId>) = (full.iter().collect(), dead.iter().collect());
    let reported = |disk: &DiskId| match () {
        () if dead.contains(disk) => DiskState::Dead,
        () if full.contains(disk) => DiskState::ReadOnly,
        () => DiskState::Good,
    };
    let of_node = map.disks.values().filter(|disk| disk.node == node);
    let changed = of_node.filter(|disk| disk.state != reported(&disk.id));
    changed.map(|disk| SystemChange::SetDiskState { disk: disk.id, state: reported(&disk.id) }).collect()
}
