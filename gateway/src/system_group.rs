//! Changes to, and linearizable reads of, the system group, with the same patience as for metadata groups.

use std::sync::Arc;
use std::time::Duration;

use placement_map::bucket::Bucket;
use placement_map::system::{SystemChange, SystemCommand, SystemOutcome};
use placement_proto::api::{PlacementApi, PlacementError};
use placement_types::{BoxFuture, BucketName, Env, TxnId};
use tokio::sync::oneshot;

use crate::limits::{BACKOFF_MAX, META_DEADLINE, META_TRY};

/// Why the system group could not serve a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SystemError {
    /// It certainly did not and will not happen.
    #[error("the system group cannot be served now: {why}")]
    Unavailable { why: String },
    #[error("the outcome of a change of the system group is unknown: {why}")]
    Unknown { why: String },
    #[error("the system group and this gateway do not understand each other: {why}")]
    BadMessage { why: String },
}

#[derive(Clone)]
pub struct SystemGroup {
    env: Env,
    placement: Arc<dyn PlacementApi>,
}

impl SystemGroup {
    pub fn new(env: Env, placement: Arc<dyn PlacementApi>) -> Self {
        Self { env, placement }
    }

    /// Proposes a change under a fresh transaction. It runs in a task of its own: a client that goes away cannot stop it
    /// half-way.
    pub async fn propose(&self, change: SystemChange) -> Result<SystemOutcome, SystemError> {
        let (sender, receiver) = oneshot::channel();
        let group = self.clone();
        let command = SystemCommand { txn: TxnId::random(&self.env), time: self.env.now(), change };
        let task = self.env.spawn("propose to the system group", async move {
            let work = || -> BoxFuture<'_, _> { group.placement.propose(command.clone()) };
            let _ = sender.send(group.call(META_DEADLINE, &work).await);
        });
        task.detach();
        receiver.await.unwrap_or_else(|_| Err(SystemError::Unknown { why: "the process is shutting down".into() }))
    }

    pub async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, SystemError> {
        let work = || -> BoxFuture<'_, _> { self.placement.bucket(name) };
        self.call(META_DEADLINE, &work).await
    }

    pub async fn buckets(&self, limit: Duration) -> Result<Vec<Bucket>, SystemError> {
        let work = || -> BoxFuture<'_, _> { self.placement.buckets() };
        self.call(limit, &work).await
    }

    async fn call<'a, T: Send>(
        &self,
        limit: Duration,
        work: &(dyn Fn() -> BoxFuture<'a, Result<T, PlacementError>> + Send + Sync),
    ) -> Result<T, SystemError> {
        let deadline = self.env.monotonic() + limit;
        let mut doubted = false;
        let mut pause = Duration::from_millis(20);
        loop {
            let left = deadline.saturating_sub(self.env.monotonic());
            let why = match self.env.timeout(left.min(META_TRY), work()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(PlacementError::BadMessage { why })) => return Err(SystemError::BadMessage { why }),
                Ok(Err(PlacementError::Unknown { why })) => {
                    doubted = true;
                    why
                }
                Ok(Err(error @ PlacementError::Superseded { .. })) => {
                    return Err(SystemError::BadMessage { why: error.to_string() });
                }
                Ok(Err(
                    error @ (PlacementError::NotLeader { .. } | PlacementError::NotFormed | PlacementError::Unavailable { .. }),
                )) => error.to_string(),
                Err(placement_types::Elapsed) => {
                    doubted = true;
                    "no answer in time".into()
                }
            };
            let left = deadline.saturating_sub(self.env.monotonic());
            if left.is_zero() {
                return Err(if doubted { SystemError::Unknown { why } } else { SystemError::Unavailable { why } });
            }
            self.env.sleep(pause.min(left)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }
}
