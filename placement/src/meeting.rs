//! How nodes without a cluster find each other and found one, exactly once.
//!
//! Every node says hello to its peers until it has a cluster. A node founds when
//! - it has met as many nodes as expected, and of those with the smallest ids (the *choice*) it is the first,
//! - each of the chosen said that its own choice is the same and that it has no cluster,
//! - and nobody it met has a cluster.
//!
//! It writes down the cluster and its nodes, asks each of them for a pledge that they write down, and when all have pledged,
//! writes down its own membership. Only then does it make the system group's first map ([`crate::bootstrap::form`]).
//!
//! Guarantees: one node is in one cluster at most, for ever, and a cluster comes to life only with all its founders; so one
//! set of nodes makes one cluster at most. Every step is durable before it is told, and repeated after a crash: a founder that
//! restarts goes on with the cluster it wrote down.
//!
//! Two founders at once would have to choose overlapping nodes. With a peer list of just the expected nodes all choose the same;
//! with a longer one, two may found while the nodes still get to know each other: then a pledge is refused, at least one of
//! them stops with [`MeetError::Taken`], and nothing was stored yet.
//!
//! A node that was told to join founds nothing and pledges to nobody: it says hello until it meets a member of a cluster, and
//! then asks that cluster's system group ([`crate::bootstrap::join`]). A node that was told to found and meets a cluster without
//! it reports [`MeetError::NotPartOf`]: it may have the wrong peers, and joining is for an operator to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use placement_map::limits::FOUNDING_NODES_MAX;
use placement_map::system::NewNode;
use placement_map::{spread_over_zones, system_voters};
use placement_proto::meeting::{Hello, MeetingApi, MeetingError, Membership, Pledge, PledgeReply};
use placement_types::{ClusterId, Env, NodeId, ReplicaId};
use tokio::sync::Notify;

use crate::identity::{Founding, IdentityError, IdentityFile, NodeIdentity};
use crate::limits::{JOIN_PATIENCE, MEETING_CALL_DEADLINE, MEETING_INTERVAL, MET_EXPIRES};

/// Reaches the meeting of the node at an address. Connecting is lazy: an unreachable node shows in the calls.
pub type Connect = Arc<dyn Fn(&str) -> Arc<dyn MeetingApi> + Send + Sync>;

/// Why a node will not get a cluster by meeting. Waiting longer does not help.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{expect} nodes cannot found a cluster: expect 1 to {FOUNDING_NODES_MAX}")]
    Expect { expect: u32 },
    #[error(
        "node {node} is to found cluster {ours} with this node, but belongs to cluster {cluster}: check that every node has the \
         same peer list, and start with empty data directories again (nothing is stored yet)"
    )]
    Taken { node: NodeId, ours: ClusterId, cluster: ClusterId },
    #[error(
        "node {peer} belongs to cluster {cluster}, which this node is not part of: check the peer list, or start this node with \
         --join to make it part of that cluster"
    )]
    NotPartOf { peer: NodeId, cluster: ClusterId },
}

/// What a node has after the meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    pub membership: Membership,
    /// The founding nodes in replica order, with their addresses at that time: how the replicas of the system group reach each
    /// other before there is a map.
    pub founders: Vec<NewNode>,
    /// This node is the founder: while there is no map, it has to [`form`](crate::bootstrap::form) it from this.
    pub founding: Option<Founding>,
}

pub struct Meeting {
    env: Env,
    identity: IdentityFile,
    me: NewNode,
    /// 0: it joins.
    expect: u32,
    peers: Vec<String>,
    connect: Connect,
    state: Mutex<State>,
    /// A pledge was written down.
    pledged: Notify,
}

struct State {
    met: BTreeMap<NodeId, Peer>,
    /// What hellos say: set as soon as this node has decided on a cluster, be it durable or not yet.
    membership: Option<Membership>,
    /// Since when somebody has a cluster and this node has none.
    stranger_since: Option<Duration>,
}

struct Peer {
    node: NewNode,
    heard: Duration,
    /// Which nodes it would found with.
    choice: Vec<NodeId>,
    membership: Option<Membership>,
}

impl Meeting {
    /// `me` is this node as it presents itself, `peers` are the addresses to ask (its own may be among them), `expect` is how
    /// many nodes found the cluster; `None` for a node that joins one.
    pub fn new(
        env: Env,
        identity: IdentityFile,
        me: NewNode,
        expect: Option<u32>,
        peers: Vec<String>,
        connect: Connect,
    ) -> Result<Arc<Self>, MeetError> {
        if let Some(expect) = expect.filter(|expect| *expect == 0 || *expect as usize > FOUNDING_NODES_MAX) {
            return Err(MeetError::Expect { expect });
        }
        let expect = expect.unwrap_or(0);
        let current = identity.current();
        assert_eq!(current.node, me.node, "a node presents itself under its own id");
        let membership = current.membership.or(current.founding.and_then(|founding| founding.membership_of(me.node)));
        let state = Mutex::new(State { met: BTreeMap::new(), membership, stranger_since: None });
        Ok(Arc::new(Self { env, identity, me, expect, peers, connect, state, pledged: Notify::new() }))
    }

    /// Takes part until this node has a cluster; at once if it has one. May be dropped and called again at any time.
    pub async fn run(&self) -> Result<Met, MeetError> {
        let mut told = None;
        loop {
            let current = self.identity.current();
            if let Some(membership) = current.membership {
                return Ok(Met { membership, founders: current.founders, founding: current.founding });
            }
            match current.founding {
                Some(founding) => self.collect_pledges(&founding).await?,
                None => {
                    self.greet_peers().await;
                    if self.try_to_found().await? {
                        continue;
                    }
                    self.check_strangers()?;
                }
            }
            self.tell_progress(&mut told);
            if self.identity.current().membership.is_none() {
                let interval = MEETING_INTERVAL.as_millis() as u64;
                let pause = Duration::from_millis(interval / 2 + self.env.random_below(interval));
                tokio::select! {
                    biased;
                    () = self.pledged.notified() => {}
                    () = self.env.sleep(pause) => {}
                }
            }
        }
    }

    /// For a node that joins: the place in a cluster of the first member it meets. May be dropped and called again.
    pub async fn find_member(&self) -> Membership {
        let mut told = None;
        loop {
            self.greet_peers().await;
            let now = self.env.monotonic();
            if let Some(membership) = self.state.lock().live(now).find_map(|peer| peer.membership.clone()) {
                return membership;
            }
            self.tell_progress(&mut told);
            self.env.sleep(MEETING_INTERVAL).await;
        }
    }

    fn tell_progress(&self, told: &mut Option<Duration>) {
        let now = self.env.monotonic();
        if told.is_none_or(|told| now.saturating_sub(told) > Duration::from_secs(10)) {
            *told = Some(now);
            let met = self.state.lock().live(now).count() + 1;
            tracing::info!(met, expected = self.expect, "meeting the other nodes");
        }
    }

    fn say_hello(&self, state: &State) -> Hello {
        let now = self.env.monotonic();
        let others = state.live(now).map(|peer| peer.node.clone());
        Hello {
            node: self.me.clone(),
            expect: self.expect,
            membership: state.membership.clone(),
            met: others.chain([self.me.clone()]).collect(),
        }
    }

    async fn greet_peers(&self) {
        let hello = self.say_hello(&self.state.lock());
        let greetings = self.peers.iter().filter(|address| **address != self.me.address).map(|address| {
            let (peer, hello) = ((self.connect)(address), hello.clone());
            async move {
                match self.env.timeout(MEETING_CALL_DEADLINE, peer.hello(hello)).await {
                    Ok(Ok(answer)) => self.note(&mut self.state.lock(), answer),
                    Ok(Err(error)) => tracing::debug!(address, %error, "a peer could not be met"),
                    Err(elapsed) => tracing::debug!(address, %elapsed, "a peer could not be met"),
                }
            }
        });
        join_all(greetings).await;
    }

    /// Remembers what a peer said of itself.
    fn note(&self, state: &mut State, hello: Hello) {
        if hello.node.node == self.me.node {
            if hello.node.address != self.me.address {
                tracing::error!(address = hello.node.address, "another node has this node's id: a data directory was copied");
            }
            return;
        }
        if hello.expect == 0 && hello.membership.is_none() {
            return;
        }
        if hello.expect != self.expect && hello.membership.is_none() {
            let (address, theirs, ours) = (&hello.node.address, hello.expect, self.expect);
            tracing::warn!(address, theirs, ours, "a peer expects another number of nodes and is not counted");
            return;
        }
        let met: Vec<NodeId> = hello.met.iter().map(|node| node.node).chain([hello.node.node]).collect();
        let heard = self.env.monotonic();
        let choice = choose(met, self.expect);
        if state.met.len() < 2 * FOUNDING_NODES_MAX || state.met.contains_key(&hello.node.node) {
            let peer = Peer { node: hello.node, heard, choice, membership: hello.membership };
            state.met.insert(peer.node.node, peer);
        }
    }

    /// Decides to found and writes it down, if all is as the module says.
    async fn try_to_found(&self) -> Result<bool, MeetError> {
        // First a look, so that the file is not locked in every round.
        if self.founders(&self.state.lock()).is_none() {
            return Ok(false);
        }
        let cluster = ClusterId::random(&self.env);
        let decided = {
            let mut state = self.state.lock();
            let founders = match self.founders(&state) {
                Some(founders) if state.membership.is_none() => founders,
                _ => return Ok(false),
            };
            let founding = Founding { cluster, nodes: spread_over_zones(founders) };
            // From here on every hello says so: nobody may count on this node any more.
            state.membership = founding.membership_of(self.me.node);
            founding
        };
        let founded = self.identity.update(move |identity| {
            if identity.membership.is_some() || identity.founding.is_some() {
                return (None, identity.membership.clone());
            }
            let founders = decided.nodes.clone();
            (Some(NodeIdentity { founding: Some(decided), founders, ..identity.clone() }), None)
        });
        if let Some(pledged) = founded.await? {
            // A founder's pledge came first.
            self.state.lock().membership = Some(pledged);
            return Ok(true);
        }
        tracing::info!(%cluster, "founding a cluster");
        Ok(true)
    }

    /// The nodes to found with, if this node is to found now.
    fn founders(&self, state: &State) -> Option<Vec<NewNode>> {
        let now = self.env.monotonic();
        let live: BTreeMap<NodeId, &Peer> = state.live(now).map(|peer| (peer.node.node, peer)).collect();
        let choice = choose(live.keys().copied().chain([self.me.node]).collect(), self.expect);
        let complete = choice.len() == self.expect as usize && choice.first() == Some(&self.me.node);
        let nobody_has_a_cluster = live.values().all(|peer| peer.membership.is_none());
        let chosen = || choice.iter().filter_map(|node| live.get(node));
        if !complete || !nobody_has_a_cluster || chosen().any(|peer| peer.choice != choice) {
            return None;
        }
        Some(chosen().map(|peer| peer.node.clone()).chain([self.me.clone()]).collect())
    }

    /// Asks every other founding node for its pledge; with all of them, writes down the membership.
    async fn collect_pledges(&self, founding: &Founding) -> Result<(), MeetError> {
        let others = founding.nodes.iter().filter(|node| node.node != self.me.node);
        let asked = others.map(|node| async move {
            let membership = founding.membership_of(node.node).expect("it is one of the nodes");
            let pledge = Pledge { founder: self.me.node, membership, nodes: founding.nodes.clone() };
            // It may have restarted elsewhere since.
            let heard_from = self.state.lock().met.get(&node.node).map(|peer| peer.node.address.clone());
            let peer = (self.connect)(&heard_from.unwrap_or_else(|| node.address.clone()));
            (node.node, self.env.timeout(MEETING_CALL_DEADLINE, peer.pledge(pledge)).await)
        });
        let mut all = true;
        for (node, reply) in join_all(asked).await {
            match reply {
                Ok(Ok(PledgeReply::Pledged)) => {}
                Ok(Ok(PledgeReply::Taken { cluster })) => {
                    return Err(MeetError::Taken { node, ours: founding.cluster, cluster });
                }
                Ok(Err(error)) => {
                    tracing::info!(%node, %error, "a founding node has not pledged yet");
                    all = false;
                }
                Err(elapsed) => {
                    tracing::info!(%node, %elapsed, "a founding node has not pledged yet");
                    all = false;
                }
            }
        }
        if all {
            let membership = founding.membership_of(self.me.node).expect("the founder is one of the nodes");
            let become_member =
                |identity: &NodeIdentity| (Some(NodeIdentity { membership: Some(membership), ..identity.clone() }), ());
            self.identity.update(become_member).await?;
        } else {
            self.greet_peers().await;
        }
        Ok(())
    }

    /// Gives up on being asked by a cluster that others are in.
    fn check_strangers(&self) -> Result<(), MeetError> {
        let now = self.env.monotonic();
        let mut state = self.state.lock();
        let stranger = state.live(now).find_map(|peer| Some((peer.node.node, peer.membership.as_ref()?.cluster)));
        let Some((peer, cluster)) = stranger.filter(|_| state.membership.is_none()) else {
            state.stranger_since = None;
            return Ok(());
        };
        let since = *state.stranger_since.get_or_insert(now);
        if now.saturating_sub(since) >= JOIN_PATIENCE {
            return Err(MeetError::NotPartOf { peer, cluster });
        }
        Ok(())
    }

    fn check_pledge(&self, pledge: &Pledge) -> Result<(), MeetingError> {
        let bad = |why: &str| Err(MeetingError::BadMessage { why: why.into() });
        if pledge.nodes.len() != self.expect as usize {
            return bad("the founder counts on another number of nodes than this node was started with");
        }
        let founding = Founding { cluster: pledge.membership.cluster, nodes: pledge.nodes.clone() };
        if founding.membership_of(self.me.node).as_ref() != Some(&pledge.membership) {
            return bad("the membership is not the one that follows from the list of nodes");
        }
        if founding.membership_of(pledge.founder).is_none() {
            return bad("the founder is not one of the nodes");
        }
        Ok(())
    }
}

#[async_trait]
impl MeetingApi for Meeting {
    async fn hello(&self, hello: Hello) -> Result<Hello, MeetingError> {
        let mut state = self.state.lock();
        self.note(&mut state, hello);
        Ok(self.say_hello(&state))
    }

    async fn pledge(&self, pledge: Pledge) -> Result<PledgeReply, MeetingError> {
        self.check_pledge(&pledge)?;
        let (asked, founders) = (pledge.membership, pledge.nodes);
        let updated = self.identity.update(move |identity| {
            let taken_by = match (&identity.membership, &identity.founding) {
                (Some(membership), _) => Some(membership.cluster),
                (None, Some(founding)) => Some(founding.cluster),
                (None, None) => None,
            };
            match taken_by {
                Some(cluster) if cluster == asked.cluster => (None, PledgeReply::Pledged),
                Some(cluster) => (None, PledgeReply::Taken { cluster }),
                None => (Some(NodeIdentity { membership: Some(asked), founders, ..identity.clone() }), PledgeReply::Pledged),
            }
        });
        let reply = updated.await.map_err(|error| MeetingError::NotWritten { why: error.to_string() })?;
        let membership = self.identity.current().membership;
        if membership.is_some() {
            self.state.lock().membership = membership;
            self.pledged.notify_one();
        }
        Ok(reply)
    }
}

impl State {
    fn live(&self, now: Duration) -> impl Iterator<Item = &Peer> {
        self.met.values().filter(move |peer| now.saturating_sub(peer.heard) < MET_EXPIRES)
    }
}

impl Founding {
    /// A founding node's place in the cluster: replica ids are given in the order of the nodes.
    pub fn membership_of(&self, node: NodeId) -> Option<Membership> {
        let order: Vec<NodeId> = self.nodes.iter().map(|node| node.node).collect();
        let replica = |position: usize| ReplicaId(position as u64 + 1);
        let position = order.iter().position(|other| *other == node)?;
        let system_group = system_voters(&order).iter().enumerate().map(|(index, node)| (*node, replica(index))).collect();
        Some(Membership { cluster: self.cluster, replica: replica(position), system_group })
    }
}

/// The `expect` smallest ids.
fn choose(mut met: Vec<NodeId>, expect: u32) -> Vec<NodeId> {
    met.sort_unstable();
    met.dedup();
    met.truncate(expect as usize);
    met
}

#[cfg(test)]
mod tests;
