//! The face of the system group on a node that holds a replica of it.
//!
//! Changes and linearizable reads are served by the group's leader, each read after a barrier; map polls by any replica, from
//! what it has applied. Heartbeats are kept in the leader's memory only: a new leader starts by granting everybody a grace.
//!
//! The leader answers for which process is a node: it takes no claim of one ([`SystemChange::Claim`]) while the process that
//! claimed it last is heard, and no heartbeat of one that was superseded.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_map::bucket::Bucket;
use placement_map::recovery::LogPlace;
use placement_map::system::{SystemChange, SystemCommand, SystemOutcome};
use placement_proto::api::{Heartbeat, MapWatch, PlacementApi, PlacementError, SystemCopy};
use placement_proto::limits::{CLAIM_SILENCE, MAP_POLL};
use placement_proto::meeting::Membership;
use placement_proto::tenure::Tenure;
use placement_types::{Boot, BucketName, Env, Epoch, GroupId, NodeId, ReplicaId, Term};
use storage_node_consensus::{Consensus, Leadership, ProposeError, ReadError};
use storage_node_kv::{KvError, KvRead};

use crate::detector::Heard;
use crate::limits::PROPOSE_DEADLINE;
use crate::machine::SystemMachine;
use crate::rows::{self, RowError};

pub struct PlacementService {
    env: Env,
    consensus: Consensus,
    machine: Arc<SystemMachine>,
    /// Who holds which replica before there is a map to tell.
    membership: Membership,
    tenure: Tenure,
    /// Of the last leadership, once it heard something.
    heard: Mutex<Option<Heard>>,
}

impl PlacementService {
    /// The group must have been created or recovered on `consensus`, with `machine` as its machine.
    pub fn new(env: Env, consensus: Consensus, machine: Arc<SystemMachine>, membership: Membership, tenure: Tenure) -> Arc<Self> {
        Arc::new(Self { env, consensus, machine, membership, tenure, heard: Mutex::default() })
    }

    /// The newest map that this replica has applied.
    pub fn maps(&self) -> MapWatch {
        self.machine.maps()
    }

    /// The leadership this node holds, if it does as far as it knows.
    pub(crate) fn leading(&self) -> Option<Leadership> {
        let leaders = self.consensus.leaders();
        let leadership = leaders.borrow().get(&GroupId::SYSTEM).copied()?;
        (leadership.leader == Some(self.consensus.replica())).then_some(leadership)
    }

    /// Shows what this leadership has heard; nothing, if it is a new one.
    pub(crate) fn with_heard<T>(&self, term: Term, work: impl FnOnce(&mut Heard) -> T) -> T {
        let mut heard = self.heard.lock();
        let known = heard.take().filter(|heard| heard.term == term);
        work(heard.insert(known.unwrap_or_else(|| Heard::new(term, self.env.monotonic()))))
    }

    /// The process that has claimed a node, if it may be alive and is not the one that asks, and how often it was heard. Only
    /// the leader knows.
    fn claimed_by_other(&self, node: NodeId, boot: Boot) -> Result<Option<(Boot, u64)>, PlacementError> {
        let Some(leadership) = self.leading() else {
            return Err(self.not_leader(self.consensus.leader(GroupId::SYSTEM)));
        };
        let claimed = self.maps().borrow().as_ref().and_then(|map| map.boots.get(&node).copied());
        let Some(claimed) = claimed.filter(|claimed| *claimed != boot) else { return Ok(None) };
        let now = self.env.monotonic();
        let (silence, heard) =
            self.with_heard(leadership.term, |heard| (heard.silence(node, claimed, now), heard.times(node, claimed)));
        let may_live = match node == self.tenure.node() {
            // Of this node a quorum has elected this process.
            true => boot != self.tenure.boot(),
            false => silence < CLAIM_SILENCE,
        };
        Ok(may_live.then_some((claimed, heard)))
    }

    fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let in_map = self.maps().borrow().as_ref().and_then(|map| map.node_by_replica(replica).map(|node| node.id));
        in_map.or_else(|| self.membership.system_group.iter().find(|(_, held)| *held == replica).map(|(node, _)| *node))
    }

    fn not_leader(&self, leader: Option<ReplicaId>) -> PlacementError {
        PlacementError::NotLeader { leader: leader.and_then(|replica| self.node_of(replica)) }
    }

    /// After this, what [`SystemMachine`] reads contains everything that was acknowledged before the call.
    async fn barrier(&self) -> Result<(), PlacementError> {
        let passed = self.env.timeout(PROPOSE_DEADLINE, self.consensus.read_barrier(GroupId::SYSTEM)).await;
        match passed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ReadError::NotLeader { leader })) => Err(self.not_leader(leader)),
            Ok(Err(ReadError::NoGroup { .. })) => Err(self.not_leader(None)),
            Ok(Err(error @ ReadError::Stopped)) => Err(PlacementError::Unavailable { why: error.to_string() }),
            Err(elapsed) => Err(PlacementError::Unavailable { why: elapsed.to_string() }),
        }
    }

    /// Reads rows away from the reactor.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn KvRead) -> Result<T, RowError> + Send + 'static,
    ) -> Result<T, PlacementError> {
        let consensus = self.consensus.clone();
        let read = self.env.run_blocking(move || consensus.read_state(GroupId::SYSTEM, work)).await;
        let unavailable = |why: String| PlacementError::Unavailable { why };
        read.map_err(|error| unavailable(error.to_string()))?.map_err(|error| unavailable(error.to_string()))
    }

    fn formed(&self) -> Result<(), PlacementError> {
        match *self.maps().borrow() {
            Some(_) => Ok(()),
            None => Err(PlacementError::NotFormed),
        }
    }
}

#[async_trait]
impl PlacementApi for PlacementService {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        if let SystemChange::Claim { node, boot, known } = &command.change
            && let Some((claimed, heard)) = self.claimed_by_other(*node, *boot)?
            && known.contains(&claimed)
        {
            return Ok(SystemOutcome::InUse { claimed, heard });
        }
        let proposed = self.consensus.propose(GroupId::SYSTEM, command.to_versioned());
        let reply = match self.env.timeout(PROPOSE_DEADLINE, proposed).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(ProposeError::NotLeader { leader })) => return Err(self.not_leader(leader)),
            Ok(Err(ProposeError::NoGroup { .. })) => return Err(self.not_leader(None)),
            Ok(Err(error @ ProposeError::Busy)) => return Err(PlacementError::Unavailable { why: error.to_string() }),
            Ok(Err(error @ ProposeError::TooLarge { .. })) => return Err(PlacementError::BadMessage { why: error.to_string() }),
            Ok(Err(error @ (ProposeError::Unknown | ProposeError::Stopped))) => {
                return Err(PlacementError::Unknown { why: error.to_string() });
            }
            Err(elapsed) => return Err(PlacementError::Unknown { why: elapsed.to_string() }),
        };
        SystemOutcome::from_versioned(&reply).map_err(|error| PlacementError::Unknown { why: error.to_string() })
    }

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        self.barrier().await?;
        self.formed()?;
        let name = name.clone();
        let row = self.read(move |state| rows::bucket(state, &name)).await?;
        Ok(row.map(|row| row.bucket))
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        self.barrier().await?;
        self.formed()?;
        let rows = self.read(|state| rows::buckets(state)).await?;
        Ok(rows.into_iter().map(|row| row.bucket).collect())
    }

    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        let mut maps = self.maps();
        let newer = maps.wait_for(|map| map.as_ref().is_some_and(|map| map.epoch > known));
        if let Ok(Ok(map)) = self.env.timeout(MAP_POLL, newer).await {
            return map.clone().ok_or(PlacementError::NotFormed);
        }
        let newest = maps.borrow().clone();
        newest.ok_or(PlacementError::NotFormed)
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        let unavailable = |why: String| PlacementError::Unavailable { why };
        let cluster = self.maps().borrow().as_ref().map(|map| map.cluster).ok_or(PlacementError::NotFormed)?;
        let consensus = self.consensus.clone();
        let copied = self.env.run_blocking(move || {
            consensus.read_state_at(GroupId::SYSTEM, |at, state| {
                let place = LogPlace { term: at.term, index: at.index };
                Ok::<_, KvError>(SystemCopy { cluster, place, rows: rows::copy(state)? })
            })
        });
        copied.await.map_err(|error| unavailable(error.to_string()))?.map_err(|error| unavailable(error.to_string()))
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), PlacementError> {
        let Some(leadership) = self.leading() else {
            return Err(self.not_leader(self.consensus.leader(GroupId::SYSTEM)));
        };
        let map = self.maps().borrow().clone().ok_or(PlacementError::NotFormed)?;
        if map.is_superseded(beat.node, beat.boot) {
            return Err(PlacementError::Superseded { node: beat.node });
        }
        if !map.nodes.contains_key(&beat.node) {
            return Err(PlacementError::BadMessage { why: format!("node {} is not in the map", beat.node) });
        }
        self.with_heard(leadership.term, |heard| heard.hear(beat, self.env.monotonic()));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
