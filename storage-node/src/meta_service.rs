//! The metadata service: the groups this node is a replica of.
//!
//! - A change is proposed as the command's bytes and answered with the machine's reply: then it is fsynced on a majority and
//!   applied here (I1).
//! - A query waits for a read barrier (proof of leadership in the current term, I10), then reads one snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use placement_proto::api::MapWatch;
use placement_types::{Env, GroupId, NodeId, ReplicaId, Waypoint};
use storage_node_consensus::{Consensus, Machine, ProposeError, ReadError};
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::api::{MetaApi, MetaError};
use storage_node_proto::command::{Command, Outcome};
use storage_node_proto::query::{Answer, Query};

use crate::duties::Leadership;
use crate::limits::Limits;

/// The object index as a machine of the consensus driver.
pub(crate) struct MetaMachine;

impl Machine for MetaMachine {
    fn apply(&self, state: &mut Overlay<'_>, index: u64, entry: &[u8]) -> Result<Bytes, KvError> {
        storage_node_meta::apply(state, index, entry)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct MetaService {
    pub env: Env,
    pub consensus: Consensus,
    pub maps: MapWatch,
    pub limits: Arc<Limits>,
}

#[async_trait]
impl MetaApi for MetaService {
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError> {
        refuse_system(group)?;
        self.env.pass(Waypoint::CommandReceived).await;
        let proposed = self.consensus.propose(group, command.to_versioned());
        let verdict = self.env.timeout(self.limits.propose, proposed).await;
        if let Ok(Ok(_)) = verdict {
            self.env.pass(Waypoint::CommandApplied).await;
        }
        match verdict {
            Ok(Ok(reply)) => Outcome::from_versioned(&reply)
                .map_err(|error| MetaError::Unknown { group, why: format!("the reply does not decode: {error}") }),
            Ok(Err(error)) => Err(self.propose_error(group, error)),
            Err(_) => Err(MetaError::Unknown { group, why: "it was not committed in time".into() }),
        }
    }

    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError> {
        if query != Query::Members {
            refuse_system(group)?;
        }
        match self.env.timeout(self.limits.propose, self.consensus.read_barrier(group)).await {
            Ok(barrier) => barrier.map_err(|error| self.read_error(group, error))?,
            Err(_) => return Err(MetaError::Unavailable { group, why: "leadership was not proven in time".into() }),
        }
        if query == Query::Members {
            let status = self.consensus.group_status(group).ok_or(MetaError::NoSuchGroup { group })?;
            return Ok(Answer::Members { replicas: [status.voters, status.voters_outgoing].concat() });
        }
        if is_small(&query) {
            return answer(&self.consensus, group, &query);
        }
        let consensus = self.consensus.clone();
        self.env.run_blocking(move || answer(&consensus, group, &query)).await
    }
}

fn answer(consensus: &Consensus, group: GroupId, query: &Query) -> Result<Answer, MetaError> {
    let unavailable = |why: String| MetaError::Unavailable { group, why };
    let answered: Result<Answer, KvError> = consensus
        .read_state(group, |state| storage_node_meta::answer(state, query))
        .map_err(|error| unavailable(error.to_string()))?;
    answered.map_err(|error| unavailable(error.to_string()))
}

/// A few point reads, mostly of cached blocks: cheaper where they stand than a trip to another thread.
fn is_small(query: &Query) -> bool {
    match query {
        Query::Version { .. } | Query::Upload { .. } | Query::CompletedUpload { .. } | Query::Members => true,
        Query::Data { txns, .. } => txns.len() <= 4,
        Query::ListObjects { .. }
        | Query::ListVersions { .. }
        | Query::ListUploads { .. }
        | Query::ListParts { .. }
        | Query::Garbage { .. }
        | Query::Degraded { .. }
        | Query::Survey { .. }
        | Query::Holdings { .. }
        | Query::Referenced { .. } => false,
    }
}

/// The system group's entries are other commands, and only the placement service proposes them.
fn refuse_system(group: GroupId) -> Result<(), MetaError> {
    if group == GroupId::SYSTEM { Err(MetaError::NoSuchGroup { group }) } else { Ok(()) }
}

impl MetaService {
    fn not_leader(&self, group: GroupId, leader: Option<ReplicaId>) -> MetaError {
        let map = self.maps.borrow().clone();
        let node = |replica| -> Option<NodeId> { Some(map.as_ref()?.node_by_replica(replica)?.id) };
        MetaError::NotLeader { group, leader: leader.and_then(node) }
    }

    fn propose_error(&self, group: GroupId, error: ProposeError) -> MetaError {
        let why = error.to_string();
        match error {
            ProposeError::NotLeader { leader } => self.not_leader(group, leader),
            ProposeError::NoGroup { group } => MetaError::NoSuchGroup { group },
            ProposeError::Unknown => MetaError::Unknown { group, why },
            ProposeError::Busy | ProposeError::Stopped => MetaError::Unavailable { group, why },
            ProposeError::TooLarge { .. } => MetaError::BadMessage { why },
        }
    }

    fn read_error(&self, group: GroupId, error: ReadError) -> MetaError {
        let why = error.to_string();
        match error {
            ReadError::NotLeader { leader } => self.not_leader(group, leader),
            ReadError::NoGroup { group } => MetaError::NoSuchGroup { group },
            ReadError::Stopped => MetaError::Unavailable { group, why },
        }
    }
}

impl Leadership for MetaService {
    fn led_groups(&self) -> Vec<GroupId> {
        let status = self.consensus.status();
        status
            .into_iter()
            .map(|status| status.group)
            .filter(|group| *group != GroupId::SYSTEM && self.consensus.leads(*group))
            .collect()
    }
}
