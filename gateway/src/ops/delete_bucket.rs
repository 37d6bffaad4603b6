//! DeleteBucket, the one operation that spans groups (I4).
//!
//! ```text
//! begin (system group: Deleting) -> fence every shelf -> purge their uploads -> finish (system group: gone)
//!                                         | one is not empty
//!                                         v
//!                                   unfence them all -> cancel (system group: Active), BucketNotEmpty
//! ```
//!
//! A fence is set in the same step that finds the shelf empty, and refuses every later write: so a bucket is gone only with
//! nothing in it, and a write that was acknowledged is never in a bucket that goes (P23). Every step may be repeated.
//!
//! One driver at a time: two could undo each other's fences. The system group sees to it: it refuses another `begin` until the
//! first is older than its lease (`placement_map::limits::DELETE_LEASE`), and a driver stops by itself long before, after
//! [`DELETE_DRIVE`]. A bucket whose driver died is taken over after that by whoever asks for its deletion again, or by
//! [`Gateway::resume_deletes`].

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use gateway_s3::{RequestContext, S3ErrorCode};
use placement_map::bucket::{Bucket, BucketState};
use placement_map::system::{SystemChange, SystemOutcome};
use placement_types::{BucketName, Env, TxnId};
use storage_node_proto::command::{Change, Command, Outcome, Shelf};
use tokio::sync::oneshot;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::{DELETE_DRIVE, META_DEADLINE, SHELVES_AT_ONCE};
use crate::listing::{self, AnyVersion, Cursor};
use crate::meta_router::{MetaRouter, RouteError};
use crate::records::shelves;
use crate::system_group::SystemGroup;

pub async fn delete_bucket(gw: &Gateway, cx: &RequestContext, bucket: BucketName) -> Result<(), Failure> {
    authorize(&cx.caller, Action::DeleteBucket, Resource::Bucket(&bucket))?;
    let bucket = gw.buckets.fresh(&bucket).await?;
    if bucket.state == BucketState::Active {
        refuse_if_not_empty(gw, &bucket).await?;
    }
    gw.buckets.forget(&bucket.name);
    begin(gw, &bucket).await?;
    drive(gw, bucket).await
}

/// The usual refusal costs no fence, and so never makes a write of a bucket that stays wait.
async fn refuse_if_not_empty(gw: &Gateway, bucket: &Bucket) -> Result<(), Failure> {
    let sources = shelves(bucket).map(|shelf| (shelf, Cursor::default()));
    match listing::list(&gw.router, sources, &AnyVersion, 0).await {
        Ok(page) if page.more => Err(S3ErrorCode::BucketNotEmpty.into()),
        // A fence means that another deletion has begun since: the system group decides.
        Ok(_) | Err(Failure::BucketGone) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Makes this process the one driver of the bucket's deletion.
async fn begin(gw: &Gateway, bucket: &Bucket) -> Result<(), Failure> {
    let change = SystemChange::BeginDeleteBucket { name: bucket.name.clone(), id: bucket.id };
    match gw.system.propose(change).await? {
        SystemOutcome::Done => Ok(()),
        SystemOutcome::NoSuchBucket => Err(Failure::NoSuchBucket),
        SystemOutcome::BucketBusy => Err(S3ErrorCode::OperationAborted.into()),
        other => Err(Failure::of_system("begin to delete a bucket", &other)),
    }
}

/// Takes a bucket in deletion to its end, in a task of its own.
async fn drive(gw: &Gateway, bucket: Arc<Bucket>) -> Result<(), Failure> {
    let driver = Driver { env: gw.env.clone(), router: Arc::clone(&gw.router), system: gw.system.clone(), bucket };
    let (sender, receiver) = oneshot::channel();
    let env = gw.env.clone();
    let task = gw.env.spawn("delete a bucket", async move {
        let verdict = env.timeout(DELETE_DRIVE, driver.run()).await;
        let _ = sender.send(verdict.unwrap_or_else(|_| Err(given_up("it took too long"))));
    });
    task.detach();
    receiver.await.unwrap_or_else(|_| Err(given_up("the process is shutting down")))
}

fn given_up(why: &str) -> Failure {
    Failure::Route(RouteError::Unknown { why: format!("the deletion of a bucket was given up: {why}") })
}

struct Driver {
    env: Env,
    router: Arc<MetaRouter>,
    system: SystemGroup,
    bucket: Arc<Bucket>,
}

impl Driver {
    async fn run(&self) -> Result<(), Failure> {
        let (name, id) = (self.bucket.name.clone(), self.bucket.id);
        let fenced = self.each_shelf(|shelf| Change::FenceShelf { shelf }).await?;
        if fenced.contains(&Verdict::NotEmpty) {
            self.each_shelf(|shelf| Change::UnfenceShelf { shelf }).await?;
            let outcome = self.system.propose(SystemChange::CancelDeleteBucket { name, id }).await?;
            return match outcome {
                SystemOutcome::Done => Err(S3ErrorCode::BucketNotEmpty.into()),
                other => Err(Failure::of_system("cancel the deletion of a bucket", &other)),
            };
        }
        // Before the last step, so that a crash between them cannot forget it: the bucket would still be in deletion.
        while self.each_shelf(|shelf| Change::PurgeShelf { shelf }).await?.contains(&Verdict::NotEmpty) {}
        match self.system.propose(SystemChange::FinishDeleteBucket { name, id }).await? {
            SystemOutcome::Done => Ok(()),
            other => Err(Failure::of_system("finish the deletion of a bucket", &other)),
        }
    }

    /// Sends a command to every shelf, and waits for all of them also when one fails: none may be under way afterwards.
    async fn each_shelf(&self, change: impl Fn(Shelf) -> Change) -> Result<BTreeSet<Verdict>, Failure> {
        let commands = shelves(&self.bucket)
            .map(|shelf| (shelf, Command { txn: TxnId::random(&self.env), time: self.env.now(), change: change(shelf) }));
        let verdicts: Vec<Result<Verdict, Failure>> = stream::iter(commands.collect::<Vec<_>>())
            .map(|(shelf, command)| async move {
                match self.router.mutate(shelf, command).await?.outcome {
                    Outcome::Done => Ok(Verdict::Done),
                    Outcome::NotEmpty => Ok(Verdict::NotEmpty),
                    other => Err(Failure::of_outcome("a step of the deletion of a bucket", other)),
                }
            })
            .buffer_unordered(SHELVES_AT_ONCE)
            .collect()
            .await;
        verdicts.into_iter().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Done,
    NotEmpty,
}

impl Gateway {
    /// Ends deletions whose driver died. To be called every minute or so; any number of processes may.
    pub async fn resume_deletes(&self) {
        let Ok(buckets) = self.system.buckets(META_DEADLINE).await else { return };
        for bucket in buckets.into_iter().filter(|bucket| bucket.state == BucketState::Deleting) {
            let bucket = Arc::new(bucket);
            // Refused as long as its driver may be alive.
            if begin(self, &bucket).await.is_err() {
                continue;
            }
            match drive(self, Arc::clone(&bucket)).await {
                Ok(()) => tracing::info!(bucket = %bucket.name, "finished a deletion that was left behind"),
                Err(failure) => tracing::info!(bucket = %bucket.name, %failure, "a deletion that was left behind did not finish"),
            }
        }
    }
}
