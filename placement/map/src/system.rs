//! The system group's state machine: what it can be asked to change, and what comes of it.

use placement_types::{Boot, BucketId, BucketName, ClusterId, DiskId, GroupId, NodeId, Profile, Timestamp, TxnId, ZoneName};

use crate::bucket::Bucket;
use crate::cluster_map::{ClusterSettings, DiskState, NodeState};

/// A change to the cluster's own state. Applying it is deterministic: ids and times are inside (I8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemCommand {
    /// Makes sending it again harmless: the group answers a repeated transaction with the first outcome.
    pub txn: TxnId,
    pub time: Timestamp,
    pub change: SystemChange,
}

/// A disk as its node presents it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisk {
    pub disk: DiskId,
    pub capacity_bytes: u64,
}

/// A node as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    pub node: NodeId,
    pub address: String,
    pub zone: ZoneName,
    pub disks: Vec<NewDisk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemChange {
    /// Makes the cluster, once: the founding nodes get the replica ids 1, 2, 3 ... in the order given. Refused when a
    /// cluster exists already. `profile: None` chooses the default of the topology.
    Form {
        cluster: ClusterId,
        nodes: Vec<NewNode>,
        profile: Option<Profile>,
        partitions: u32,
        groups: u32,
    },
    /// A node says where it is and what disks it has, at every start. New disks wait to be taken in; unknown nodes are refused.
    Register {
        node: NewNode,
    },
    SetNodeState {
        node: NodeId,
        state: NodeState,
    },
    SetDiskState {
        disk: DiskId,
        state: DiskState,
    },
    CreateBucket {
        bucket: Bucket,
    },
    /// First step of DeleteBucket; from here on creation of the same name is refused until it ends.
    BeginDeleteBucket {
        name: BucketName,
        id: BucketId,
    },
    /// Last step: every shelf is fenced and empty.
    FinishDeleteBucket {
        name: BucketName,
        id: BucketId,
    },
    /// Something was in it: it is active again. The shelves were unfenced first.
    CancelDeleteBucket {
        name: BucketName,
        id: BucketId,
    },
    SetBucket {
        bucket: Bucket,
    },
    /// Does nothing.
    Nothing {},
    /// Moves the ring one step nearer to what [`crate::assign`] aims at; nothing changes when it is there.
    Rebalance {},
    /// A node asks to become part of the cluster, with no say in it and nothing on its disks until an operator takes them in.
    /// Of a node that is part of it already: what Register does.
    Join {
        node: NewNode,
    },
    /// An operator changes what the cluster consists of. Refused when the layout is not the one the change was planned on.
    SetLayout {
        planned_on: u64,
        change: LayoutChange,
    },
    /// Replaces the voters that a metadata group is to have; its leader then moves the replicas. Refused when they are not
    /// `from`.
    SetVoters {
        group: GroupId,
        from: Vec<NodeId>,
        to: Vec<NodeId>,
    },
    SetSettings {
        settings: ClusterSettings,
    },
    /// A run of a node's process says that it is the node from now on. `known` are the runs that its directory has seen: a
    /// directory that does not know the run that claimed the node last is an old copy, and refused. Whether that run still
    /// lives is asked before, by the leader.
    Claim {
        node: NodeId,
        boot: Boot,
        known: Vec<Boot>,
    },
    /// The first entry of a new incarnation, put into the log while every node was stopped; see [`crate::recovery`]. Nodes that
    /// are gone for ever are removed with their disks, and each of these groups has but one voter.
    Recover {
        gone: Vec<NodeId>,
        alone: Vec<(GroupId, NodeId)>,
    },
}

/// What an operator may change about the layout; see [`crate::layout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutChange {
    /// Joining disks come into use.
    TakeIn { disks: Vec<DiskId> },
    /// What the disks hold is moved elsewhere.
    Drain { disks: Vec<DiskId> },
    /// Takes a draining back.
    Keep { disks: Vec<DiskId> },
    /// `None`: by capacity.
    Weigh { disk: DiskId, weight_bytes: Option<u64> },
    /// Forgets disks that are drained, joining or dead. Whoever proposes it has made sure that nothing refers to them, or
    /// that what does may be lost.
    RemoveDisks { disks: Vec<DiskId> },
    /// Forgets a node without disks that votes in no group.
    RemoveNode { node: NodeId },
    /// The k+m of new chunks.
    SetProfile { profile: Profile },
}

/// A bucket with what only the system group needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRow {
    pub bucket: Bucket,
    /// When the deletion under way began; meaningless while the bucket is active.
    pub deleting_since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemOutcome {
    Done,
    /// Form was refused: this is the cluster that exists.
    AlreadyFormed {
        cluster: ClusterId,
    },
    NotFormed,
    UnknownNode,
    /// The disk belongs to another node.
    DiskTaken {
        disk: DiskId,
    },
    BucketExists {
        bucket: Bucket,
    },
    NoSuchBucket,
    /// The bucket is being deleted: try again.
    BucketBusy,
    TooManyBuckets,
    /// The command could not be decoded or breaks a rule of its type. Nothing was changed.
    Malformed {
        why: String,
    },
    /// The node or disk was removed from the cluster.
    Removed,
    /// The layout is another one than the change was planned on: plan again.
    StalePlan {
        layout: u64,
    },
    /// The cluster as it is does not allow the change; the text says why, for a person.
    Refused {
        why: String,
    },
    /// Another process is the node, or was, and this one's directory has not seen it.
    Superseded {
        claimed: Boot,
    },
    /// The process that claimed the node may live: it was heard a moment ago, or the leader has not listened for long enough to
    /// tell. Ask again; `heard` says how often this leader has heard it.
    InUse {
        claimed: Boot,
        heard: u64,
    },
}

impl SystemOutcome {
    /// Why nothing was changed, for a person, when the caller has nothing better to say about the outcome.
    pub fn into_reason(self) -> String {
        match self {
            SystemOutcome::Malformed { why } | SystemOutcome::Refused { why } => why,
            outcome => format!("{outcome:?}"),
        }
    }
}

/// The group that a founding command made first; a convenience for readers of a map.
pub const FIRST_METADATA_GROUP: GroupId = GroupId(1);
