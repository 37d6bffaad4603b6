//! The commands of a node's start: making the cluster's first map, joining one that exists, and saying where this node is and
//! what disks it has.
//!
//! All try until the system group answers; it may still be electing its first leader, or waiting for its second node.

use std::time::Duration;

use placement_map::limits::PARTITIONS_DEFAULT;
use placement_map::system::{NewNode, SystemChange, SystemCommand, SystemOutcome};
use placement_proto::api::{PlacementApi, PlacementError};
use placement_types::{Boot, ClusterId, DiskId, Env, Epoch, NodeId, Profile, ReplicaId, TxnId};

use crate::identity::Founding;
use crate::limits::{BACKOFF_MAX, CLAIM_PATIENCE, CLAIM_PATIENCE_ONCE_ANSWERED, CLAIM_RETRY, SIGNS_OF_LIFE};

/// What the founder may choose about a cluster; it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `None`: the default of the topology.
    pub profile: Option<Profile>,
    pub partitions: u32,
    pub groups: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { profile: None, partitions: PARTITIONS_DEFAULT, groups: 8 }
    }
}

/// Why a node cannot take its place. Trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    #[error("the system group belongs to cluster {cluster} already")]
    OtherCluster { cluster: ClusterId },
    #[error("node {node} is not part of the cluster: its data directory belongs to another one, or it was removed")]
    UnknownNode { node: NodeId },
    #[error("node {node} was removed from the cluster: start it with an empty data directory to add it again, as a new node")]
    Removed { node: NodeId },
    #[error("disk {disk} belongs to another node of the cluster: a data directory was copied or moved")]
    DiskTaken { disk: DiskId },
    #[error(
        "node {node} runs already: another process is alive that has its data directory, or a copy of it. Stop that first, or \
         start this one with an empty data directory, as a new node"
    )]
    InUse { node: NodeId },
    #[error(
        "node {node} was started since with another copy of its data directory: this one is out of date and must not act as \
         the node. Start the other one. If that is lost, remove the node from the cluster and add it again with an empty data \
         directory"
    )]
    Outdated { node: NodeId },
    #[error("the system group refused: {why}")]
    Refused { why: String },
    #[error("the nodes do not understand each other, are they of the same release? {why}")]
    BadMessage { why: String },
}

/// Makes the first map, once: harmless to repeat, as a founder does that crashed on the way. Only a founder may call it, with
/// the founding record of its identity.
pub async fn form(env: &Env, placement: &dyn PlacementApi, founding: &Founding, shape: &Shape) -> Result<(), BootstrapError> {
    let change = SystemChange::Form {
        cluster: founding.cluster,
        nodes: founding.nodes.clone(),
        profile: shape.profile,
        partitions: shape.partitions,
        groups: shape.groups,
    };
    match insist(env, placement, change).await? {
        SystemOutcome::Done => Ok(()),
        SystemOutcome::AlreadyFormed { cluster } if cluster == founding.cluster => Ok(()),
        SystemOutcome::AlreadyFormed { cluster } => Err(BootstrapError::OtherCluster { cluster }),
        outcome => Err(refused(outcome)),
    }
}

/// What claiming a node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub node: NodeId,
    /// This run.
    pub boot: Boot,
    /// The runs that the node's directory has seen.
    pub known: Vec<Boot>,
}

/// What came of asking before taking part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// This process is the node, and no other.
    Claimed,
    /// There was nobody to ask, as when a whole cluster starts.
    Unanswered,
}

/// Claims the node for this process if there is a system group to ask, before it takes part in any group: the copy of a
/// directory must not vote while the original does, nor when it has not seen the original's last run.
pub async fn ask_for_claim(env: &Env, placement: &dyn PlacementApi, claim: &Claim) -> Result<Asked, BootstrapError> {
    let mut patience = CLAIM_PATIENCE;
    let mut in_use = InUse::default();
    loop {
        let outcome = match env.timeout(patience, insist(env, placement, claim.change())).await {
            Err(_) | Ok(Ok(SystemOutcome::NotFormed)) => return Ok(Asked::Unanswered),
            Ok(answered) => answered?,
        };
        if claim.settled_by(outcome, &mut in_use)? {
            return Ok(Asked::Claimed);
        }
        patience = CLAIM_PATIENCE_ONCE_ANSWERED;
        env.sleep(CLAIM_RETRY).await;
    }
}

/// Claims the node for this process. At every start, once there is a map.
pub async fn make_claim(env: &Env, placement: &dyn PlacementApi, claim: &Claim) -> Result<(), BootstrapError> {
    let mut in_use = InUse::default();
    loop {
        let outcome = insist(env, placement, claim.change()).await?;
        if claim.settled_by(outcome, &mut in_use)? {
            return Ok(());
        }
        env.sleep(CLAIM_RETRY).await;
    }
}

/// What was said of the process before: in how many answers it had been heard again since the one before, and how often in the
/// last.
///
/// A process that died just now is silent for long enough soon. But a leader that has only just been elected says "in use" of
/// everybody, and what a kernel still sends of a dead process after a partition arrives at once: neither is a sign of life.
#[derive(Debug, Default)]
struct InUse {
    answers: u32,
    heard: u64,
}

impl InUse {
    /// Whether it certainly lives.
    fn note(&mut self, heard: u64) -> bool {
        // Less than before is another leader's count.
        self.answers += u32::from(heard > self.heard && self.heard > 0);
        self.heard = heard;
        self.answers >= SIGNS_OF_LIFE
    }
}

impl Claim {
    fn change(&self) -> SystemChange {
        SystemChange::Claim { node: self.node, boot: self.boot, known: self.known.clone() }
    }

    /// Whether that was the last word; `false`: ask again.
    fn settled_by(&self, outcome: SystemOutcome, in_use: &mut InUse) -> Result<bool, BootstrapError> {
        let node = self.node;
        match outcome {
            SystemOutcome::Done => Ok(true),
            SystemOutcome::NotFormed => Ok(false),
            SystemOutcome::InUse { heard, .. } if in_use.note(heard) => Err(BootstrapError::InUse { node }),
            SystemOutcome::InUse { .. } => Ok(false),
            SystemOutcome::Superseded { .. } => Err(BootstrapError::Outdated { node }),
            SystemOutcome::Removed => Err(BootstrapError::Removed { node }),
            SystemOutcome::UnknownNode => Err(BootstrapError::UnknownNode { node }),
            outcome => Err(refused(outcome)),
        }
    }
}

/// Says where this node is and what disks it has. At every start, once there is a map.
pub async fn register(env: &Env, placement: &dyn PlacementApi, node: NewNode) -> Result<(), BootstrapError> {
    loop {
        match insist(env, placement, SystemChange::Register { node: node.clone() }).await? {
            SystemOutcome::Done => return Ok(()),
            SystemOutcome::NotFormed => env.sleep(BACKOFF_MAX).await,
            SystemOutcome::UnknownNode => return Err(BootstrapError::UnknownNode { node: node.node }),
            SystemOutcome::Removed => return Err(BootstrapError::Removed { node: node.node }),
            SystemOutcome::DiskTaken { disk } => return Err(BootstrapError::DiskTaken { disk }),
            outcome => return Err(refused(outcome)),
        }
    }
}

/// Makes a node part of a cluster that exists, and returns its replica id there. Harmless to repeat. Its disks hold nothing
/// until an operator takes them in.
pub async fn join(env: &Env, placement: &dyn PlacementApi, node: NewNode) -> Result<ReplicaId, BootstrapError> {
    match insist(env, placement, SystemChange::Join { node: node.clone() }).await? {
        SystemOutcome::Done => {}
        SystemOutcome::Removed => return Err(BootstrapError::Removed { node: node.node }),
        SystemOutcome::DiskTaken { disk } => return Err(BootstrapError::DiskTaken { disk }),
        outcome => return Err(refused(outcome)),
    }
    // Any replica may answer, also one that has not applied the command yet.
    let mut known = Epoch(0);
    loop {
        if let Ok(map) = placement.newer_map(known).await {
            if let Some(node) = map.nodes.get(&node.node) {
                return Ok(node.replica);
            }
            known = map.epoch;
        }
        env.sleep(BACKOFF_MAX).await;
    }
}

fn refused(outcome: SystemOutcome) -> BootstrapError {
    BootstrapError::Refused { why: outcome.into_reason() }
}

/// Proposes until there is an outcome.
async fn insist(env: &Env, placement: &dyn PlacementApi, change: SystemChange) -> Result<SystemOutcome, BootstrapError> {
    let command = SystemCommand { txn: TxnId::random(env), time: env.now(), change };
    let mut told = Duration::ZERO;
    loop {
        match placement.propose(command.clone()).await {
            Ok(outcome) => return Ok(outcome),
            Err(PlacementError::BadMessage { why }) => return Err(BootstrapError::BadMessage { why }),
            Err(error) => {
                if told.is_zero() || env.monotonic().saturating_sub(told) > Duration::from_secs(10) {
                    told = env.monotonic();
                    tracing::info!(%error, "waiting for the system group");
                }
                env.sleep(BACKOFF_MAX).await;
            }
        }
    }
}
