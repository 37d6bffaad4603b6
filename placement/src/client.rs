//! The system group from anywhere: finds the leader, tries again, keeps the map fresh.
//!
//! It follows hints of nodes that do not lead, and otherwise asks the candidates in turn: the nodes that the newest map says
//! hold the group, and the addresses it was given. A command keeps its transaction over all tries, so that an unknown outcome
//! may be tried again (I9). When the deadline passes after a try whose outcome is unknown, the outcome is unknown; otherwise
//! it certainly did not happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_map::bucket::Bucket;
use placement_map::system::{SystemCommand, SystemOutcome};
use placement_proto::api::{Heartbeat, MapWatch, PlacementApi, PlacementError, SystemCopy};
use placement_proto::limits::MAP_POLL_DEADLINE;
use placement_types::{BucketName, ClusterId, Env, Epoch, GroupId, NodeId, TaskHandle};
use tokio::sync::watch;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, CLIENT_DEADLINE, HINTS_MAX, TRY_DEADLINE};

/// Reaches the node at an address, in this process or over the network. Connecting is lazy: an unreachable node shows in the
/// calls, as [`PlacementError::Unavailable`].
pub type Connect = Arc<dyn Fn(&str) -> Arc<dyn PlacementApi> + Send + Sync>;

/// Cheap to clone; clones share what they learn.
#[derive(Clone)]
pub struct PlacementClient {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    connect: Connect,
    seeds: Vec<String>,
    /// Maps of other clusters are refused; without an expectation, those unlike the first one.
    cluster: Option<ClusterId>,
    deadline: Duration,
    maps: watch::Sender<Option<Arc<ClusterMap>>>,
    /// Where the last call succeeded.
    leader: Mutex<Option<String>>,
    /// Where the next call begins its round: a caller that gives up on a silent node must not meet it first again.
    turn: AtomicUsize,
}

/// Whether a call that failed may have left something behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Nothing,
    Change,
}

impl PlacementClient {
    pub fn new(env: Env, connect: Connect, seeds: Vec<String>, cluster: Option<ClusterId>) -> Self {
        let maps = watch::Sender::new(None);
        let (deadline, leader, turn) = (CLIENT_DEADLINE, Mutex::new(None), AtomicUsize::new(0));
        let inner = Inner { env, connect, seeds, cluster, deadline, maps, leader, turn };
        Self { inner: Arc::new(inner) }
    }

    /// The newest map this client has seen. Kept fresh by [`PlacementClient::follow`].
    pub fn maps(&self) -> MapWatch {
        self.inner.maps.subscribe()
    }

    /// Keeps [`PlacementClient::maps`] fresh by long polls. Dropping the handle stops it.
    pub fn follow(&self) -> TaskHandle {
        let client = self.clone();
        self.inner.env.spawn("map follower", async move { client.follow_map().await })
    }

    /// Takes a map in, if it is newer and of the same cluster. Returns whether it was.
    pub fn learn(&self, map: Arc<ClusterMap>) -> bool {
        let expected = self.inner.cluster.or(self.inner.maps.borrow().as_ref().map(|map| map.cluster));
        if expected.is_some_and(|expected| expected != map.cluster) {
            tracing::error!(cluster = %map.cluster, "ignored the map of another cluster: check the peer addresses");
            return false;
        }
        self.inner.maps.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| known.epoch < map.epoch);
            if newer {
                *known = Some(map);
            }
            newer
        })
    }

    async fn follow_map(&self) {
        let mut turn = 0usize;
        let mut pause = BACKOFF_MIN;
        loop {
            let candidates = self.candidates();
            let known = self.inner.maps.borrow().as_ref().map_or(Epoch(0), |map| map.epoch);
            let polled = match candidates.get(turn % candidates.len().max(1)) {
                Some(address) => {
                    let node = (self.inner.connect)(address);
                    self.inner.env.timeout(MAP_POLL_DEADLINE, node.newer_map(known)).await
                }
                None => Ok(Err(PlacementError::Unavailable { why: "no address is known".into() })),
            };
            match polled {
                Ok(Ok(map)) if map.epoch <= known => {
                    // Perhaps nothing is new, perhaps this one is cut off from the others: the next one will tell.
                    turn += 1;
                    self.sleep_about(pause).await;
                }
                Ok(Ok(map)) => {
                    pause = BACKOFF_MIN;
                    if !self.learn(map) {
                        turn += 1;
                        self.sleep_about(BACKOFF_MAX).await;
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a map poll failed");
                    turn += 1;
                    self.sleep_about(pause).await;
                    pause = (pause * 2).min(BACKOFF_MAX);
                }
                Err(_) => turn += 1,
            }
        }
    }

    /// Where the group may be: its holders by the newest map, then the seeds.
    fn candidates(&self) -> Vec<String> {
        let mut addresses = Vec::new();
        if let Some(map) = self.inner.maps.borrow().as_ref() {
            let holders = map.groups.get(&GroupId::SYSTEM).into_iter().flatten();
            addresses.extend(holders.filter_map(|node| map.nodes.get(node)).map(|node| node.address.clone()));
        }
        addresses.extend(self.inner.seeds.iter().cloned());
        let mut distinct: Vec<String> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        distinct
    }

    fn address_of(&self, node: NodeId) -> Option<String> {
        self.inner.maps.borrow().as_ref().and_then(|map| map.nodes.get(&node)).map(|node| node.address.clone())
    }

    async fn sleep_about(&self, pause: Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX).max(2);
        self.inner.env.sleep(Duration::from_micros(micros / 2 + self.inner.env.random_below(micros))).await;
    }

    /// Tries `work` on one node after the other until one succeeds or the deadline passes.
    async fn call<T: Send>(
        &self,
        effect: Effect,
        work: impl Fn(Arc<dyn PlacementApi>) -> BoxFuture<'static, Result<T, PlacementError>> + Send + Sync,
    ) -> Result<T, PlacementError> {
        let env = &self.inner.env;
        let deadline = env.monotonic() + self.inner.deadline;
        // What to report in the end: a change in doubt, else what a node said last, which tells more than another's silence.
        let (mut doubt, mut answered): (Option<PlacementError>, Option<PlacementError>) = (None, None);
        let mut pause = BACKOFF_MIN;
        let first = self.inner.turn.load(Ordering::Relaxed);
        let (mut turn, mut hints) = (0usize, 0);
        // Taken, not copied: whoever is dropped while it waits for a dead leader leaves no trace of it.
        let mut next: Option<String> = self.inner.leader.lock().take();
        loop {
            let candidates = self.candidates();
            let target = next.take().or_else(|| {
                let target = candidates.get((first + turn) % candidates.len().max(1)).cloned();
                self.inner.turn.fetch_add(1, Ordering::Relaxed);
                turn += 1;
                target
            });
            let error = match self.try_once(target.as_deref(), deadline, &work).await {
                Ok(value) => {
                    *self.inner.leader.lock() = target;
                    return Ok(value);
                }
                Err(error) => error,
            };
            match &error {
                PlacementError::BadMessage { .. } | PlacementError::Superseded { .. } => return Err(doubt.unwrap_or(error)),
                PlacementError::NotLeader { leader: Some(leader) } if hints < HINTS_MAX => {
                    next = self.address_of(*leader).filter(|address| target.as_ref() != Some(address));
                    if next.is_some() {
                        hints += 1;
                        continue;
                    }
                }
                PlacementError::Unknown { .. } if effect == Effect::Change => doubt = Some(error.clone()),
                PlacementError::NotLeader { .. } | PlacementError::NotFormed | PlacementError::Unavailable { .. } => {
                    answered = Some(error.clone());
                }
                PlacementError::Unknown { .. } => {}
            }
            let left = deadline.saturating_sub(env.monotonic());
            if left.is_zero() {
                return Err(doubt.or(answered).unwrap_or(error));
            }
            // Ask everybody once before pausing: one of them most likely leads.
            if turn.is_multiple_of(candidates.len().max(1)) {
                hints = 0;
                self.sleep_about(pause.min(left)).await;
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        }
    }

    async fn try_once<T>(
        &self,
        target: Option<&str>,
        deadline: Duration,
        work: impl Fn(Arc<dyn PlacementApi>) -> BoxFuture<'static, Result<T, PlacementError>>,
    ) -> Result<T, PlacementError> {
        let Some(address) = target else {
            return Err(PlacementError::Unavailable { why: "no address of a storage node is known".into() });
        };
        let left = deadline.saturating_sub(self.inner.env.monotonic());
        let tried = self.inner.env.timeout(left.min(TRY_DEADLINE), work((self.inner.connect)(address))).await;
        tried.unwrap_or_else(|_| Err(PlacementError::Unknown { why: format!("{address} does not answer") }))
    }
}

#[async_trait]
impl PlacementApi for PlacementClient {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        self.call(Effect::Change, move |node: Arc<dyn PlacementApi>| -> BoxFuture<'static, _> {
            let command = command.clone();
            Box::pin(async move { node.propose(command).await })
        })
        .await
    }

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        let name = name.clone();
        let read = self.call(Effect::Nothing, move |node: Arc<dyn PlacementApi>| -> BoxFuture<'static, _> {
            let name = name.clone();
            Box::pin(async move { node.bucket(&name).await })
        });
        read.await.map_err(harmless)
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        let read = self.call(Effect::Nothing, |node: Arc<dyn PlacementApi>| -> BoxFuture<'static, _> {
            Box::pin(async move { node.buckets().await })
        });
        read.await.map_err(harmless)
    }

    /// Answers from what this client knows when that is newer already, else polls the next node.
    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        if let Some(map) = self.inner.maps.borrow().as_ref().filter(|map| map.epoch > known) {
            return Ok(map.clone());
        }
        let candidates = self.candidates();
        let turn = self.inner.env.random_below(candidates.len().max(1) as u64) as usize;
        let mut failure = PlacementError::NotFormed;
        for step in 0..candidates.len() {
            let node = (self.inner.connect)(&candidates[(turn + step) % candidates.len()]);
            match self.inner.env.timeout(MAP_POLL_DEADLINE, node.newer_map(known)).await {
                Ok(Ok(map)) => {
                    self.learn(map.clone());
                    return Ok(map);
                }
                Ok(Err(error)) => failure = error,
                Err(elapsed) => failure = PlacementError::Unavailable { why: elapsed.to_string() },
            }
        }
        Err(failure)
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        let read = self.call(Effect::Nothing, |node: Arc<dyn PlacementApi>| -> BoxFuture<'static, _> {
            Box::pin(async move { node.system_copy().await })
        });
        read.await.map_err(harmless)
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), PlacementError> {
        let sent = self.call(Effect::Nothing, move |node: Arc<dyn PlacementApi>| -> BoxFuture<'static, _> {
            let beat = beat.clone();
            Box::pin(async move { node.heartbeat(beat).await })
        });
        sent.await.map_err(harmless)
    }
}

/// Reads and heartbeats change nothing: losing one is never in doubt.
fn harmless(error: PlacementError) -> PlacementError {
    match error {
        PlacementError::Unknown { why } => PlacementError::Unavailable { why },
        error => error,
    }
}

#[cfg(test)]
mod tests;
