//! How nodes without a cluster meet and found one.
//!
//! Every node polls its peer list with [`Hello`]. When `expect` nodes with the same expectation have met, the one with the
//! smallest id is the founder: it durably writes down the cluster it is about to found, asks each of the others for a durable
//! [`Pledge`], and only when all of them pledged creates the system group. A node pledges to one cluster in its life, so two
//! clusters cannot be founded from one set of nodes.

use async_trait::async_trait;
use placement_map::system::NewNode;
use placement_types::{ClusterId, NodeId, ReplicaId};

/// What a node tells its peers until it belongs to a cluster, and answers when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub node: NewNode,
    /// How many nodes it founds with; 0: it founds nothing, it joins.
    pub expect: u32,
    /// The cluster it belongs to or has pledged to, if any.
    pub membership: Option<Membership>,
    /// Every node it has met so far, itself included.
    pub met: Vec<NewNode>,
}

/// A place in a cluster; kept durably in the node's identity file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    /// The nodes that hold the system group at its start, with their replica ids.
    pub system_group: Vec<(NodeId, ReplicaId)>,
}

/// The founder asks a node to belong to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pledge {
    pub founder: NodeId,
    /// What the asked node is to write down.
    pub membership: Membership,
    /// The founding nodes in replica order.
    pub nodes: Vec<NewNode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PledgeReply {
    /// Written down durably (or already was).
    Pledged,
    /// The node belongs to, or pledged to, another cluster.
    Taken { cluster: ClusterId },
}

/// A node's face to nodes that have no cluster yet.
#[async_trait]
pub trait MeetingApi: Send + Sync {
    async fn hello(&self, hello: Hello) -> Result<Hello, MeetingError>;
    async fn pledge(&self, pledge: Pledge) -> Result<PledgeReply, MeetingError>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeetingError {
    #[error("peer unreachable: {why}")]
    Unreachable { why: String },
    #[error("the identity file could not be written: {why}")]
    NotWritten { why: String },
    #[error("bad message: {why}")]
    BadMessage { why: String },
}
