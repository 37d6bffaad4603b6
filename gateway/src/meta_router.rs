//! Brings commands and queries to the leader of the metadata group that owns them.
//!
//! (bucket, key) -> index shard -> slot -> group (by the cluster map) -> leader (remembered, hinted or found by trying).
//! Every failure that another try can mend is tried again until a deadline, a command always under the same transaction,
//! so that the group answers a repetition with the first outcome (I9). When the deadline passes, the caller learns whether
//! the command certainly did not happen or may have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use placement_map::{ClusterMap, NodeState};
use placement_proto::api::MapWatch;
use placement_types::{BoxFuture, Env, GroupId, NodeId, Slot};
use storage_node_proto::api::{MetaError, NodeApi, Nodes};
use storage_node_proto::command::{Command, Outcome, Shelf};
use storage_node_proto::query::{Answer, Query};

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, MAP_WAIT, META_DEADLINE, META_TRY};

/// Why a call could not be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// It certainly did not and will not happen.
    #[error("metadata cannot be served now: {why}")]
    Unavailable { why: String },
    /// The command may have been applied, or may be yet.
    #[error("the outcome of a change is unknown: {why}")]
    Unknown { why: String },
    #[error("group {group} and this gateway do not understand each other: {why}")]
    BadMessage { group: GroupId, why: String },
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutated {
    pub outcome: Outcome,
    /// Whether an earlier try of the same transaction may still be under way somewhere.
    pub doubted: bool,
}

#[derive(Clone, Copy)]
enum Target {
    Slot(Slot),
    Group(GroupId),
}

pub struct MetaRouter {
    env: Env,
    nodes: Arc<dyn Nodes>,
    maps: MapWatch,
    leaders: Mutex<BTreeMap<GroupId, NodeId>>,
}

impl MetaRouter {
    pub fn new(env: Env, nodes: Arc<dyn Nodes>, maps: MapWatch) -> Self {
        Self { env, nodes, maps, leaders: Mutex::default() }
    }

    /// Proposes a command to the group of `shelf`. Dropping the call leaves the outcome open: whoever must know it calls this
    /// from a task that nobody drops.
    pub async fn mutate(&self, shelf: Shelf, command: Command) -> Result<Mutated, RouteError> {
        let work = |node: Arc<dyn NodeApi>, group| -> BoxFuture<'static, Result<Outcome, MetaError>> {
            let command = command.clone();
            Box::pin(async move { node.mutate(group, command).await })
        };
        let (outcome, doubted) = self.call(Target::Slot(shelf.slot()), META_DEADLINE, &work).await?;
        Ok(Mutated { outcome, doubted })
    }

    /// Asks the group of `shelf`.
    pub async fn query(&self, shelf: Shelf, query: Query) -> Result<Answer, RouteError> {
        self.ask(Target::Slot(shelf.slot()), META_DEADLINE, query).await
    }

    /// Asks a group, whatever it owns; for health checks, hence with a deadline of their own.
    pub async fn query_group(&self, group: GroupId, limit: Duration, query: Query) -> Result<Answer, RouteError> {
        self.ask(Target::Group(group), limit, query).await
    }

    /// The node that last answered for a group, if any did.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.leaders.lock().get(&group).copied()
    }

    async fn ask(&self, target: Target, limit: Duration, query: Query) -> Result<Answer, RouteError> {
        let work = |node: Arc<dyn NodeApi>, group| -> BoxFuture<'static, Result<Answer, MetaError>> {
            let query = query.clone();
            Box::pin(async move { node.query(group, query).await })
        };
        match self.call(target, limit, &work).await {
            Ok((answer, _)) => Ok(answer),
            // A query changes nothing, so there is nothing unknown about it.
            Err(RouteError::Unknown { why }) => Err(RouteError::Unavailable { why }),
            Err(error) => Err(error),
        }
    }

    /// Tries node after node until one serves `work`. The flag tells whether an earlier try may still happen.
    async fn call<T: Send>(
        &self,
        target: Target,
        limit: Duration,
        work: &(dyn Fn(Arc<dyn NodeApi>, GroupId) -> BoxFuture<'static, Result<T, MetaError>> + Send + Sync),
    ) -> Result<(T, bool), RouteError> {
        let deadline = self.env.monotonic() + limit;
        let mut doubted = false;
        let mut hint = None;
        let mut why = String::from("no cluster map is known yet");
        for tries in 0u32.. {
            let left = deadline.saturating_sub(self.env.monotonic());
            if left.is_zero() {
                break;
            }
            let Some((group, node, voters)) = self.pick(target, hint.take(), tries) else {
                self.wait_for_map(left).await;
                continue;
            };
            let Some(api) = self.nodes.node(node) else {
                why = format!("node {node} is not known");
                self.pause(tries, voters, left).await;
                continue;
            };
            match self.env.timeout(left.min(META_TRY), work(api, group)).await {
                Ok(Ok(value)) => {
                    self.leaders.lock().insert(group, node);
                    return Ok((value, doubted));
                }
                Ok(Err(MetaError::NotLeader { leader, .. })) => {
                    self.forget(group, node);
                    why = format!("node {node} does not lead group {group}");
                    hint = leader.filter(|leader| *leader != node);
                }
                Ok(Err(MetaError::NoSuchGroup { .. })) => {
                    self.forget(group, node);
                    why = format!("node {node} holds no replica of group {group}");
                    self.wait_for_map(left).await;
                }
                Ok(Err(error @ MetaError::Unavailable { .. })) => {
                    self.forget(group, node);
                    why = error.to_string();
                }
                Ok(Err(error @ MetaError::Unknown { .. })) => {
                    self.forget(group, node);
                    doubted = true;
                    why = error.to_string();
                }
                Ok(Err(MetaError::BadMessage { why })) => return Err(RouteError::BadMessage { group, why }),
                Err(placement_types::Elapsed) => {
                    self.forget(group, node);
                    doubted = true;
                    why = format!("node {node} did not answer for group {group} in time");
                }
            }
            if hint.is_none() || tries >= 2 * voters {
                self.pause(tries, voters, left).await;
            }
        }
        Err(if doubted { RouteError::Unknown { why } } else { RouteError::Unavailable { why } })
    }

    /// Whom to ask next: the hinted leader, the remembered one on the first try, then the voters in turn, those that are up
    /// first. Also the number of voters. `None` without a map.
    fn pick(&self, target: Target, hint: Option<NodeId>, tries: u32) -> Option<(GroupId, NodeId, u32)> {
        let map: Arc<ClusterMap> = self.maps.borrow().clone()?;
        let group = match target {
            Target::Slot(slot) => map.group_of(slot),
            Target::Group(group) => group,
        };
        let mut voters = map.groups.get(&group)?.clone();
        let up = |id: &NodeId| map.nodes.get(id).is_some_and(|node| node.state == NodeState::Up);
        voters.sort_by_key(|id| !up(id));
        let count = u32::try_from(voters.len()).unwrap_or(u32::MAX).max(1);
        let remembered = (tries == 0).then(|| self.leader(group)).flatten();
        let in_turn = voters.get((tries % count) as usize).copied();
        let node = hint.or(remembered).or(in_turn)?;
        Some((group, node, count))
    }

    fn forget(&self, group: GroupId, node: NodeId) {
        let mut leaders = self.leaders.lock();
        if leaders.get(&group) == Some(&node) {
            leaders.remove(&group);
        }
    }

    /// Rests after each full round through the voters; within the first round the next voter is asked at once.
    async fn pause(&self, tries: u32, voters: u32, left: Duration) {
        let rounds = (tries + 1) / voters;
        if rounds == 0 {
            return;
        }
        let pause = BACKOFF_MIN.saturating_mul(1 << (rounds - 1).min(8)).min(BACKOFF_MAX);
        // Half of it is random, so that gateways do not return all at once.
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let jittered = Duration::from_millis(millis / 2 + self.env.random_below(millis / 2 + 1));
        self.env.sleep(jittered.min(left)).await;
    }

    async fn wait_for_map(&self, left: Duration) {
        let mut maps = self.maps.clone();
        maps.mark_unchanged();
        let limit = left.min(MAP_WAIT);
        let waited = self.env.timeout(limit, maps.changed()).await;
        // A closed watch resolves at once and for ever; rest, so that this does not spin.
        if let Ok(Err(_closed)) = waited {
            self.env.sleep(limit).await;
        }
    }
}
