//! Reaches the leader of a metadata group, here or on a peer.
//!
//! Commands carry their transaction id, so asking again after an unknown outcome is safe (I9).

use std::sync::Arc;

use futures::future::BoxFuture;
use placement_proto::api::MapWatch;
use placement_types::{Env, GroupId, NodeId};
use storage_node_proto::api::{MetaApi, MetaError, Nodes};
use storage_node_proto::command::{Command, Outcome};
use storage_node_proto::query::{Answer, Query};

use crate::limits::{LEADER_HOPS_MAX, Limits};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct GroupClient {
    pub env: Env,
    pub me: NodeId,
    pub local: Arc<dyn MetaApi>,
    pub nodes: Arc<dyn Nodes>,
    pub maps: MapWatch,
    pub limits: Arc<Limits>,
}

impl GroupClient {
    pub async fn query(&self, group: GroupId, query: &Query) -> Result<Answer, MetaError> {
        self.ask(group, |node| {
            let query = query.clone();
            Box::pin(async move { node.query(group, query).await })
        })
        .await
    }

    pub async fn mutate(&self, group: GroupId, command: &Command) -> Result<Outcome, MetaError> {
        self.ask(group, |node| {
            let command = command.clone();
            Box::pin(async move { node.mutate(group, command).await })
        })
        .await
    }

    /// Asks this node if it is a voter, then the others, following hints, until one answers as leader.
    async fn ask<T>(
        &self,
        group: GroupId,
        call: impl Fn(Arc<dyn MetaApi>) -> BoxFuture<'static, Result<T, MetaError>>,
    ) -> Result<T, MetaError> {
        let Some(map) = self.maps.borrow().clone() else {
            return Err(MetaError::Unavailable { group, why: "this node has no cluster map yet".into() });
        };
        let mut voters = map.groups.get(&group).cloned().unwrap_or_default();
        voters.sort_by_key(|node| *node != self.me);
        let mut last = MetaError::NoSuchGroup { group };
        let mut hint = None;
        for hop in 0..LEADER_HOPS_MAX.min(voters.len() * 2) {
            let target = hint.take().unwrap_or(voters[hop % voters.len()]);
            let Some(node) = self.node(target) else { continue };
            match self.env.timeout(self.limits.call, call(node)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error @ MetaError::BadMessage { .. })) => return Err(error),
                Ok(Err(error)) => {
                    if let MetaError::NotLeader { leader, .. } = &error {
                        hint = leader.filter(|leader| *leader != target);
                    }
                    last = error;
                }
                Err(_) => last = MetaError::Unknown { group, why: "no answer in time".into() },
            }
        }
        Err(last)
    }

    fn node(&self, id: NodeId) -> Option<Arc<dyn MetaApi>> {
        if id == self.me {
            return Some(self.local.clone());
        }
        let node = self.nodes.node(id)?;
        Some(node)
    }
}
