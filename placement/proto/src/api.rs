//! The placement service as its callers see it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use placement_map::ClusterMap;
use placement_map::bucket::Bucket;
use placement_map::recovery::LogPlace;
use placement_map::system::{SystemCommand, SystemOutcome};
use placement_types::{Boot, BucketName, ClusterId, DiskId, Epoch, NodeId};
use tokio::sync::watch;

/// The newest map a process knows. `None` until the cluster is formed and found.
pub type MapWatch = watch::Receiver<Option<Arc<ClusterMap>>>;

/// Reads and writes of the system group. All are linearizable unless they say otherwise.
#[async_trait]
pub trait PlacementApi: Send + Sync {
    /// Proposes a change and waits until it is applied on the leader.
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError>;

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError>;

    /// In name order.
    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError>;

    /// Long poll: answers as soon as there is a map newer than `known`, else after some seconds with what there is. Any replica
    /// answers, from what it has applied.
    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError>;

    /// A copy of the group's state, by any replica, from what it has applied.
    async fn system_copy(&self) -> Result<SystemCopy, PlacementError>;

    /// A node is alive and its disks are as reported.
    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), PlacementError>;
}

/// The system group's state after one entry of its log: the rows, in key order, without the outcomes of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemCopy {
    pub cluster: ClusterId,
    pub place: LogPlace,
    pub rows: Vec<(Bytes, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub node: NodeId,
    /// Which run of it.
    pub boot: Boot,
    /// Disks that take no more shards, or are dead; every other disk of the node is good.
    pub full: Vec<DiskId>,
    pub dead: Vec<DiskId>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("this node does not lead the system group")]
    NotLeader { leader: Option<NodeId> },
    #[error("no cluster is formed yet")]
    NotFormed,
    /// It certainly did not happen.
    #[error("the system group cannot be served now: {why}")]
    Unavailable { why: String },
    /// It may have happened; send the same transaction again.
    #[error("the outcome in the system group is unknown: {why}")]
    Unknown { why: String },
    #[error("bad message: {why}")]
    BadMessage { why: String },
    #[error("another process is node {node}, or it was removed")]
    Superseded { node: NodeId },
}
