//! What goes wrong, one enum per family of operations.

use std::io;
use std::path::PathBuf;

use placement_types::{GroupId, ReplicaId};
use storage_node_kv::KvError;

use crate::log::LogError;

/// Why the driver did not start. None of these is repaired by trying again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration cannot work: {reason}")]
    Config { reason: &'static str },
    #[error("another process uses the log in {dir}")]
    Locked { dir: PathBuf },
    #[error("the log in {dir} belongs to replica {found}, not {expected}: point this node at its own directory")]
    WrongReplica { dir: PathBuf, found: ReplicaId, expected: ReplicaId },
    #[error(
        "the state store knows group {group}, but the log in {dir} does not: its votes and entries are lost. \
         Do not start with an empty log; remove this replica from the cluster and add the node again under a new id"
    )]
    LogMissing { dir: PathBuf, group: GroupId },
    #[error(
        "the state of group {group} ends at entry {applied}, before its log begins ({first}): the state store was lost or \
         rolled back. Remove this replica from the cluster and add the node again under a new id"
    )]
    StateMissing { group: GroupId, applied: u64, first: u64 },
    #[error(
        "the state of group {group} has entry {applied} applied, but its log ends at {last}: the log was rolled back. \
         Remove this replica from the cluster and add the node again under a new id"
    )]
    LogBehindState { group: GroupId, applied: u64, last: u64 },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("group {group} cannot be set up: {detail}")]
    Group { group: GroupId, detail: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateGroupError {
    #[error("the members of group {group} are not a set of 1 to 32 replicas")]
    Members { group: GroupId },
    #[error("this node holds as many groups as it may")]
    Full,
    #[error("consensus has stopped")]
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed, or what was proposed is known to be lost: safe to send to the leader.
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<ReplicaId> },
    /// Nothing was proposed. Try again a little later.
    #[error("too many proposals wait")]
    Busy,
    /// It may or may not be applied, now or later.
    #[error("leadership was lost before the entry was known to be committed")]
    Unknown,
    #[error("consensus has stopped")]
    Stopped,
    #[error("group {group} is not on this node")]
    NoGroup { group: GroupId },
    #[error("an entry of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<ReplicaId> },
    #[error("consensus has stopped")]
    Stopped,
    #[error("group {group} is not on this node")]
    NoGroup { group: GroupId },
}

#[derive(Debug, thiserror::Error)]
pub enum ReadStateError {
    /// Ask another replica, or again later.
    #[error("group {group} has no whole state on this node")]
    NotWhole { group: GroupId },
    #[error(transparent)]
    Kv(#[from] KvError),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<ReplicaId> },
    /// Another change is under way, or leadership is being handed over.
    #[error("another membership change is under way")]
    Busy,
    /// The change may or may not have happened: look at the group's status.
    #[error("leadership was lost before the change was known to be done")]
    Unknown,
    #[error("the members of group {group} are not a set of 1 to 32 replicas with at least one voter")]
    Members { group: GroupId },
    #[error("consensus has stopped")]
    Stopped,
    #[error("group {group} is not on this node")]
    NoGroup { group: GroupId },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<ReplicaId> },
    #[error("replica {to} is not a voter of group {group}")]
    NotVoter { group: GroupId, to: ReplicaId },
    /// The other replica did not take over within an election timeout. This node still leads, or somebody else does.
    #[error("leadership was not taken over in time")]
    TimedOut,
    #[error("consensus has stopped")]
    Stopped,
    #[error("group {group} is not on this node")]
    NoGroup { group: GroupId },
}
