//! What the system group's leader does unasked: marks nodes and disks as they are heard, settles the ring, and says which nodes
//! are to hold the replicas of the metadata groups.
//!
//! Every holder of a replica runs the loop; it acts only while it leads. Two leaders for a moment do no harm: what they propose
//! needs a quorum, and setting a state twice changes nothing.

use std::sync::Arc;
use std::time::Duration;

use placement_map::apply::{SystemView, apply};
use placement_map::system::{SystemChange, SystemCommand, SystemOutcome};
use placement_map::voters::{VoterChange, next_change};
use placement_map::{ClusterMap, NodeState};
use placement_proto::api::PlacementApi;
use placement_types::{Env, Epoch, TaskHandle, Term, TxnId};

use crate::limits::{CHANGES_PER_LOOK, DETECT_INTERVAL, REBALANCE_INTERVAL, VOTERS_INTERVAL};
use crate::service::PlacementService;

/// Starts the loop. Dropping the handle stops it.
pub fn start(env: Env, service: Arc<PlacementService>) -> TaskHandle {
    let steward = Steward { env: env.clone(), service, watch: None, settled: None };
    env.spawn("placement steward", steward.run())
}

struct Steward {
    env: Env,
    service: Arc<PlacementService>,
    watch: Option<Watch>,
    /// The last map whose ring was found settled.
    settled: Option<Epoch>,
}

/// A stretch of time in which this node led without interruption.
#[derive(Clone, Copy)]
struct Watch {
    term: Term,
    next_rebalance: Duration,
    next_voters: Duration,
}

impl Steward {
    async fn run(mut self) {
        loop {
            self.env.sleep(DETECT_INTERVAL).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let Some(leadership) = self.service.leading() else {
            self.watch = None;
            return;
        };
        let Some(map) = self.service.maps().borrow().clone() else { return };
        let now = self.env.monotonic();
        let mut watch = match self.watch {
            Some(watch) if watch.term == leadership.term => watch,
            _ => Watch { term: leadership.term, next_rebalance: now + REBALANCE_INTERVAL, next_voters: now + VOTERS_INTERVAL },
        };
        let changes = self.service.with_heard(leadership.term, |heard| {
            if heard.look(now) {
                tracing::warn!("this node was paused: every node gets a new grace before it counts as down");
            }
            heard.decide(&map, now)
        });
        self.mark(changes).await;
        if now >= watch.next_rebalance {
            watch.next_rebalance = now + REBALANCE_INTERVAL;
            self.settle_ring(map.clone()).await;
        }
        if now >= watch.next_voters {
            watch.next_voters = now + VOTERS_INTERVAL;
            self.place_voters(&map).await;
        }
        // Proposals may have waited for an election; that was no pause.
        self.service.with_heard(leadership.term, |heard| heard.waited(self.env.monotonic()));
        self.watch = Some(watch);
    }

    async fn mark(&self, changes: Vec<SystemChange>) {
        for change in changes.into_iter().take(CHANGES_PER_LOOK) {
            match &change {
                SystemChange::SetNodeState { node, state: NodeState::Down } => tracing::warn!(%node, "node is silent: down"),
                SystemChange::SetNodeState { node, state: NodeState::Lost } => {
                    tracing::warn!(%node, "node stays away: what it holds is rebuilt elsewhere");
                }
                SystemChange::SetNodeState { node, state: NodeState::Up } => tracing::info!(%node, "node is heard again: up"),
                change => tracing::info!(?change, "disk changed its state"),
            }
            if !self.propose(change).await {
                return;
            }
        }
    }

    /// One step of the ring, if a step would change it.
    async fn settle_ring(&mut self, map: Arc<ClusterMap>) {
        if self.settled == Some(map.epoch) {
            return;
        }
        let epoch = map.epoch;
        let dry_run = self.command(SystemChange::Rebalance {});
        let step = move || apply(SystemView { map: Some(&map), bucket: None, buckets: 0 }, &dry_run).1.map.is_some();
        if !self.env.run_blocking(step).await {
            self.settled = Some(epoch);
            return;
        }
        tracing::info!("the ring moves a step nearer to balance");
        self.propose(SystemChange::Rebalance {}).await;
    }

    /// One change of one group's voters, if any is called for.
    async fn place_voters(&self, map: &ClusterMap) {
        if let Some(VoterChange { group, from, to }) = next_change(map) {
            tracing::info!(%group, ?from, ?to, "a metadata group is to have other voters");
            self.propose(SystemChange::SetVoters { group, from, to }).await;
        }
    }

    fn command(&self, change: SystemChange) -> SystemCommand {
        SystemCommand { txn: TxnId::random(&self.env), time: self.env.now(), change }
    }

    async fn propose(&self, change: SystemChange) -> bool {
        match self.service.propose(self.command(change)).await {
            Ok(SystemOutcome::Done) => true,
            Ok(outcome) => {
                tracing::warn!(?outcome, "the system group refused a change of its leader");
                true
            }
            Err(error) => {
                tracing::info!(%error, "a change waits for the system group");
                false
            }
        }
    }
}
