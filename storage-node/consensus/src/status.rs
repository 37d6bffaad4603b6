//! What can be seen from outside without asking the driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use placement_types::{GroupId, ReplicaId, Term};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
}

/// One group as this node saw it at the end of its last turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    pub group: GroupId,
    pub role: Role,
    pub leader: Option<ReplicaId>,
    pub term: Term,
    pub committed: u64,
    /// The last entry whose effects are readable in the store.
    pub applied: u64,
    pub voters: Vec<ReplicaId>,
    pub learners: Vec<ReplicaId>,
    /// A membership change has begun and not ended: `voters` is its target, these are the voters it leaves.
    pub voters_outgoing: Vec<ReplicaId>,
}

/// Who leads a group, and since which term. A singleton job fences what it does with the term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<ReplicaId>,
    pub term: Term,
}

pub type Leaders = Arc<BTreeMap<GroupId, Leadership>>;

/// Whether the driver still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Running,
    /// Stopped on request.
    Stopped,
    /// The log or the state failed. Nothing is acknowledged any more; the disk is to be treated as dead (I14).
    Failed {
        reason: String,
    },
}
