//! One open disk of this node, fenced off from the others: a disk that hangs takes no more than its own share of threads.
//!
//! Reading and asking a disk block a thread each, for ever if the disk never answers (D22). Every such call runs in a task of
//! its own that holds one of the disk's places until the call really ends, even when whoever asked has long gone to another
//! shard. When all places are taken, further callers wait without a thread, until their own deadline.
//!
//! A disk that makes no progress with one of its calls, writes or fsyncs is reported dead until it has gone on for a while: new
//! chunks are planned without it and reads go elsewhere, instead of finding out anew each time.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_types::{DiskId, Env, ShardId};
use storage_node_proto::api::{DiskHealth, DiskReport};
use storage_node_proto::upkeep::{ScrubReport, ScrubTally};
use storage_node_store::{DarkSearch, Disk, DiskState, Examined, Held, ReadError, ScrubState, ScrubStep, ShardSummary, Usage};
use tokio::sync::{Semaphore, oneshot};

use crate::limits::{CALLS_PER_DISK_MAX, STALL_DEADLINE, STALL_REST};
use crate::metrics;

/// What a call on a disk found out.
pub(crate) enum Called<T> {
    Answered(T),
    /// The call died with the process's runtime.
    Lost,
}

#[derive(Debug)]
pub(crate) struct LocalDisk {
    pub id: DiskId,
    env: Env,
    disk: Disk,
    calls: Arc<Semaphore>,
    /// The probe's own place: one that hangs is not followed by another.
    probes: Arc<Semaphore>,
    began: Arc<Mutex<Began>>,
    /// Until when the disk counts as one that hangs.
    stalled_until: Mutex<Option<Duration>>,
    /// How far the scrub is, for reports.
    scrub: Mutex<ScrubState>,
}

/// When the calls under way began.
#[derive(Debug, Default)]
struct Began {
    next: u64,
    calls: BTreeMap<u64, Duration>,
}

impl Began {
    fn begin(&mut self, now: Duration) -> u64 {
        self.next += 1;
        self.calls.insert(self.next, now);
        self.next
    }
}

impl LocalDisk {
    pub fn new(env: Env, disk: Disk) -> Self {
        let (calls, probes) = (Arc::new(Semaphore::new(CALLS_PER_DISK_MAX)), Arc::new(Semaphore::new(1)));
        let id = disk.identity().disk;
        let (began, stalled_until, scrub) = Default::default();
        Self { id, env, disk, calls, probes, began, stalled_until, scrub }
    }

    /// The disk itself, for calls that wait in its queue and not on a thread: writes, deletes and upkeep.
    pub fn store(&self) -> &Disk {
        &self.disk
    }

    pub async fn read_units(&self, shard: ShardId, first: u32, count: u32) -> Called<Result<Vec<Bytes>, ReadError>> {
        let disk = self.disk.clone();
        self.call(&self.calls, async move { disk.read_units(shard, first, count).await }).await
    }

    pub async fn stat(&self, shard: ShardId) -> Called<Result<ShardSummary, ReadError>> {
        let disk = self.disk.clone();
        self.call(&self.calls, async move { disk.stat(shard).await }).await
    }

    /// What the disk has of these shards, by its index.
    pub async fn held(&self, shards: Vec<ShardId>) -> Called<Result<Vec<Held>, ReadError>> {
        let disk = self.disk.clone();
        self.call(&self.calls, async move { disk.held(shards).await }).await
    }

    /// Reads all of a shard.
    pub async fn examine(&self, shard: ShardId) -> Called<Result<Examined, ReadError>> {
        let disk = self.disk.clone();
        self.call(&self.calls, async move { disk.examine(shard).await }).await
    }

    /// A step of the scrub.
    pub async fn examine_next(&self, after: Option<ShardId>) -> Called<Result<ScrubStep, ReadError>> {
        let disk = self.disk.clone();
        self.call(&self.calls, async move { disk.examine_next(after).await }).await
    }

    /// A step of the search for dark data: a whole segment. A disk that has to seek needs longer for that than for anything else,
    /// so it says nothing about whether the disk hangs.
    pub async fn search_dark(&self, search: DarkSearch) -> Called<Result<DarkSearch, ReadError>> {
        let disk = self.disk.clone();
        self.run(&self.calls, async move { disk.search_dark(search).await }).await
    }

    pub fn set_scrub(&self, state: ScrubState) {
        *self.scrub.lock() = state;
    }

    /// The disk as it is now. One that does not answer within `limit` is as good as dead.
    pub async fn report(&self, limit: Duration) -> DiskReport {
        let disk = self.disk.clone();
        let usage = self.call(&self.probes, async move { disk.usage().await });
        let usage: Option<Usage> = match self.env.timeout(limit, usage).await {
            Ok(Called::Answered(Ok(usage))) => Some(usage),
            Ok(Called::Answered(Err(_)) | Called::Lost) | Err(_) => None,
        };
        let report = DiskReport {
            disk: self.id,
            path: self.disk.path().display().to_string(),
            health: match &usage {
                Some(usage) if !self.is_stalled() => health(&usage.state),
                Some(_) | None => DiskHealth::Dead,
            },
            total_bytes: usage.as_ref().map_or(0, |usage| usage.total_bytes),
            available_bytes: usage.as_ref().map_or(0, |usage| usage.available_bytes),
            shard_bytes: usage.as_ref().map_or(0, |usage| usage.live_bytes),
            shards: usage.as_ref().map_or(0, |usage| usage.shards),
            quarantined: usage.as_ref().map_or(0, |usage| usage.quarantined),
            scrub: scrub_report(*self.scrub.lock()),
        };
        metrics::disk(self.id, report.shard_bytes, report.available_bytes, report.quarantined);
        report
    }

    fn is_stalled(&self) -> bool {
        let now = self.env.monotonic();
        // Tickets grow, so the first call is the oldest.
        let oldest = self.began.lock().calls.first_key_value().map_or(now, |(_, began)| *began);
        let stuck_for = self.disk.stuck_for().max(now.saturating_sub(oldest));
        let mut stalled_until = self.stalled_until.lock();
        if stuck_for >= STALL_DEADLINE {
            if stalled_until.is_none() {
                tracing::error!(disk = %self.id, ?stuck_for, "the disk hangs: it is reported dead until it gets on");
            }
            *stalled_until = Some(now + STALL_REST);
        } else if stalled_until.is_some_and(|until| until <= now) {
            tracing::info!(disk = %self.id, "the disk gets on again");
            *stalled_until = None;
        }
        stalled_until.is_some()
    }

    /// Runs what a sound disk does in no time: when it takes long, the disk hangs.
    async fn call<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Called<T> {
        let (env, began) = (self.env.clone(), self.began.clone());
        let watched = async move {
            let ticket = began.lock().begin(env.monotonic());
            let value = work.await;
            began.lock().calls.remove(&ticket);
            value
        };
        self.run(places, watched).await
    }

    async fn run<T: Send + 'static>(&self, places: &Arc<Semaphore>, work: impl Future<Output = T> + Send + 'static) -> Called<T> {
        let Ok(place) = places.clone().acquire_owned().await else { return Called::Lost };
        let (sender, receiver) = oneshot::channel();
        let task = self.env.spawn("disk-call", async move {
            let value = work.await;
            drop(place);
            let _ = sender.send(value);
        });
        // It outlives a caller that gives up: only its end gives the place back.
        task.detach();
        receiver.await.map_or(Called::Lost, Called::Answered)
    }
}

fn scrub_report(state: ScrubState) -> ScrubReport {
    let tally = |tally: storage_node_store::ScrubTally| ScrubTally {
        began: tally.began,
        shards: tally.shards,
        bytes: tally.bytes,
        damaged: tally.damaged,
        dark: tally.dark,
        unreadable: tally.unreadable,
    };
    ScrubReport {
        current: state.current.map(|(current, _)| tally(current)),
        finished: state.finished.map(|finished| (finished.at, tally(finished.tally))),
    }
}

fn health(state: &DiskState) -> DiskHealth {
    match state {
        DiskState::Good => DiskHealth::Good,
        DiskState::Full | DiskState::ReadOnly { .. } => DiskHealth::Full,
        DiskState::Dead { .. } => DiskHealth::Dead,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use placement_env::sim;
    use placement_types::{ChunkId, ClusterId, NodeId};
    use storage_node_kv::MemoryKv;
    use storage_node_store::{DiskIdentity, ExpectedIdentity, Options};

    use super::*;

    async fn open_disk() -> (Env, LocalDisk) {
        let (env, _) = sim::env(1);
        let identity = DiskIdentity { cluster: ClusterId::from_u128(1), node: NodeId::from_u128(2), disk: DiskId::from_u128(3) };
        let path = Path::new("/disk");
        Disk::format(&env, path, identity).await.unwrap();
        let index = Arc::new(|_: &Path| Ok(Arc::new(MemoryKv::new()) as _));
        let disk = Disk::open(&env, path, ExpectedIdentity::exactly(identity), index, Options::for_disk(1 << 30)).await.unwrap();
        (env.clone(), LocalDisk::new(env, disk))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_hang_keep_their_places_and_take_no_more() {
        let (env, disk) = open_disk().await;
        let second = Duration::from_secs(1);
        for _ in 0..CALLS_PER_DISK_MAX {
            // Whoever asked gives up; the call goes on.
            let hung = disk.call(&disk.calls, std::future::pending::<()>());
            assert!(env.timeout(second / 100, hung).await.is_err());
        }
        let shard = ShardId { chunk: ChunkId::from_u128(4), index: 0 };
        assert!(env.timeout(second, disk.stat(shard)).await.is_err(), "no place is left");
        // The probe has its own place, and says so when even that hangs.
        assert_eq!(disk.report(second).await.health, DiskHealth::Good);
        assert!(env.timeout(second, disk.call(&disk.probes, std::future::pending::<()>())).await.is_err());
        assert_eq!(disk.report(second).await.health, DiskHealth::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_may_take_long_is_no_hang() {
        let (env, disk) = open_disk().await;
        let second = Duration::from_secs(1);
        let long = env.timeout(2 * STALL_DEADLINE, disk.run(&disk.calls, env.clock.sleep(3 * STALL_DEADLINE)));
        assert!(long.await.is_err());
        assert_eq!(disk.report(second).await.health, DiskHealth::Good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_makes_no_progress_is_dead_until_it_has_gone_on_for_a_while() {
        let (env, disk) = open_disk().await;
        let second = Duration::from_secs(1);
        let health = async || disk.report(second).await.health;
        let hung = env.timeout(second, disk.call(&disk.calls, env.clock.sleep(STALL_DEADLINE + 5 * second)));
        assert!(hung.await.is_err());
        assert_eq!(health().await, DiskHealth::Good);
        env.sleep(STALL_DEADLINE).await;
        assert_eq!(health().await, DiskHealth::Dead);
        env.sleep(5 * second).await;
        assert_eq!(health().await, DiskHealth::Dead, "it has only just gone on");
        env.sleep(STALL_REST).await;
        assert_eq!(health().await, DiskHealth::Good);
    }
}
