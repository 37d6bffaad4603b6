//! Resolves bucket names, from memory where that is safe.
//!
//! A remembered bucket may be stale in two ways. It may be deleted: then its shelves are fenced and every metadata call on
//! it answers `BucketGone`, upon which the request asks [`Buckets::after_gone`] for the truth and starts over. Or its
//! settings may have changed: they are used for at most [`BUCKET_FRESH`]. Absence is never remembered. What must be exact
//! without touching a shelf (HeadBucket, an empty page) uses [`Buckets::fresh`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use placement_map::bucket::{Bucket, BucketState};
use placement_types::{BucketName, Env};

use crate::error::Failure;
use crate::limits::{BUCKET_FRESH, BUCKET_RETRIES_MAX, BUCKETS_CACHED_MAX};
use crate::system_group::{SystemError, SystemGroup};

struct Remembered {
    bucket: Arc<Bucket>,
    /// On the monotonic clock.
    read: Duration,
}

pub struct Buckets {
    env: Env,
    system: SystemGroup,
    known: Mutex<BTreeMap<BucketName, Remembered>>,
}

impl Buckets {
    pub fn new(env: Env, system: SystemGroup) -> Self {
        Self { env, system, known: Mutex::default() }
    }

    /// The bucket, possibly from memory; every use of it must go through a shelf.
    pub async fn get(&self, name: &BucketName) -> Result<Arc<Bucket>, Failure> {
        let remembered = self.known.lock().get(name).map(|entry| (Arc::clone(&entry.bucket), entry.read));
        match remembered {
            Some((bucket, read)) if self.env.monotonic().saturating_sub(read) < BUCKET_FRESH => Ok(bucket),
            Some((bucket, _)) => match self.fresh(name).await {
                // The fence still guards an old entry; reads go on while the system group has no leader.
                Err(Failure::System(SystemError::Unavailable { .. } | SystemError::Unknown { .. })) => Ok(bucket),
                verdict => verdict,
            },
            None => self.fresh(name).await,
        }
    }

    /// The bucket as the system group has it now. A bucket in deletion is still there.
    pub async fn fresh(&self, name: &BucketName) -> Result<Arc<Bucket>, Failure> {
        // Taken before the question is asked: the answer is at least as new as this.
        let read = self.env.monotonic();
        let Some(bucket) = self.system.bucket(name).await? else {
            self.forget(name);
            return Err(Failure::NoSuchBucket);
        };
        let bucket = Arc::new(bucket);
        if bucket.state == BucketState::Active {
            let mut known = self.known.lock();
            if known.len() >= BUCKETS_CACHED_MAX && !known.contains_key(name) {
                known.clear();
            }
            known.insert(name.clone(), Remembered { bucket: Arc::clone(&bucket), read });
        } else {
            self.forget(name);
        }
        Ok(bucket)
    }

    /// A shelf of `stale` answered `BucketGone`: the bucket to start over with. `Err` when there is none, or it is just being
    /// deleted.
    pub async fn after_gone(&self, stale: &Bucket) -> Result<Arc<Bucket>, Failure> {
        self.forget(&stale.name);
        let bucket = self.fresh(&stale.name).await?;
        match bucket.state {
            BucketState::Deleting => Err(Failure::BucketBusy),
            BucketState::Active => Ok(bucket),
        }
    }

    pub fn forget(&self, name: &BucketName) {
        self.known.lock().remove(name);
    }

    /// Runs `work` with the bucket, and again with the bucket as it is then when a shelf answers that it is gone. `work` must be
    /// fit to run twice.
    pub async fn with<T, F>(&self, name: &BucketName, work: impl Fn(Arc<Bucket>) -> F + Send) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut bucket = self.get(name).await?;
        for _ in 0..BUCKET_RETRIES_MAX {
            match work(Arc::clone(&bucket)).await {
                Err(Failure::BucketGone) => bucket = self.after_gone(&bucket).await?,
                verdict => return verdict,
            }
        }
        work(bucket).await
    }
}
