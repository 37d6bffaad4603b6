//! The handle of an open disk: everything a storage node asks of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_types::{Env, Profile, ShardId, TaskHandle};
use storage_node_kv::{Kv, KvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::append::Appender;
use crate::compaction::{self, Compaction};
use crate::error::{OpenError, ReadError, WriteError};
use crate::health::DiskState;
use crate::identity::{self, DiskIdentity, ExpectedIdentity};
use crate::index::ShardSummary;
use crate::limits::{
    LIST_MAX, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, RECLAIM_LISTS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, WRITTEN_BATCHES_MAX,
};
use crate::log::{self, Append, Core};
use crate::position::{BLOCK_BYTES, Position};
use crate::read;
use crate::recovery;
use crate::writer::{Owner, Purpose, ShardWriter, Stream};

/// Opens the index in a directory. The store calls it again, with the directory's files removed, when it answered
/// [`KvError::Corrupt`] or what it opened turned out to be corrupt; it then has to come up empty. RocksDB needs no write-ahead
/// log here: the segments are one, and a log that a power cut tore would cost a rebuild.
pub type IndexOpener = Arc<dyn Fn(&Path) -> Result<Arc<dyn Kv>, KvError> + Send + Sync>;

/// How a disk uses its space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The size of new segments.
    pub segment_bytes: u64,
    /// Free space that shards leave to deletes, compaction and the index.
    pub reserve_bytes: u64,
}

impl Options {
    /// What suits a file system of so many bytes: segments of 256 MiB, smaller on small disks.
    pub fn for_disk(total_bytes: u64) -> Self {
        let segment_bytes = (total_bytes / 64).clamp(16 << 20, 256 << 20);
        Self { segment_bytes, reserve_bytes: 2 * segment_bytes }.within_limits()
    }

    pub(crate) fn within_limits(self) -> Self {
        let segment_bytes = self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        Self { segment_bytes: segment_bytes - segment_bytes % BLOCK_BYTES, reserve_bytes: self.reserve_bytes }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::for_disk(u64::MAX)
    }
}

/// A disk's space and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Of the file system.
    pub total_bytes: u64,
    /// What shards may still take: free space without the reserve.
    pub available_bytes: u64,
    /// Records of shards, also of those being written.
    pub live_bytes: u64,
    /// Segment bytes nothing needs any more, whether or not they were given back as holes.
    pub dead_bytes: u64,
    pub shards: u64,
    /// Those of them that were found bad and are not repaired yet.
    pub quarantined: u64,
    pub segments: u64,
    pub state: DiskState,
}

/// An open disk. Clones are handles to the same disk; it closes when the last one and the last writer are gone, or by
/// [`Disk::close`]. Every call may be cancelled; a cancelled write or delete may or may not happen.
#[derive(Clone)]
pub struct Disk {
    pub(crate) handle: Arc<Handle>,
}

/// What handles and writers share.
pub(crate) struct Handle {
    pub core: Arc<Core>,
    log: mpsc::Sender<Append>,
    /// Bytes the queue may still hold.
    room: Arc<Semaphore>,
    /// Append stage, commit stage, hole punching.
    tasks: Mutex<Vec<TaskHandle>>,
    /// One checkpoint at a time, so that the mark never goes back.
    checkpointing: tokio::sync::Mutex<()>,
    pub compacting: tokio::sync::Mutex<compaction::Stuck>,
}

impl Handle {
    fn closed(&self) -> WriteError {
        self.core.health.alive().err().unwrap_or(WriteError::Closed { disk: self.core.identity.disk })
    }

    /// Waits for a place in the queue.
    pub async fn reserve(&self) -> Result<mpsc::Permit<'_, Append>, WriteError> {
        self.log.reserve().await.map_err(|_| self.closed())
    }

    /// Waits until the queue may hold so many more bytes.
    pub async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WriteError> {
        let permits = u32::try_from(bytes.max(1)).expect("at most UNIT_BYTES_MAX");
        self.room.clone().acquire_many_owned(permits).await.map_err(|_| self.closed())
    }

    /// Waits for the log's answer.
    pub async fn answer<T>(&self, reply: oneshot::Receiver<Result<T, WriteError>>) -> Result<T, WriteError> {
        reply.await.unwrap_or_else(|_| Err(self.closed()))
    }

    pub async fn ask<T>(&self, request: impl FnOnce(log::Reply<T>) -> Append) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.reserve().await?.send(request(reply));
        self.answer(answer).await
    }

    /// Makes the index durable up to now; returns the position it reaches.
    pub async fn checkpoint(&self) -> Result<Position, WriteError> {
        let _one_at_a_time = self.checkpointing.lock().await;
        // The barrier's answer: everything before it is fsynced and in the index, though not yet durably there.
        let upto = self.ask(|reply| Append::Barrier { reply }).await?;
        let core = self.core.clone();
        self.core
            .env
            .run_blocking(move || core.index.checkpoint(upto).map_err(|error| core.index_failed(&error)))
            .await
            .map(|()| upto)
    }
}

impl Disk {
    /// Makes an empty directory (created when missing) a disk, durably. Refuses one that holds anything.
    pub async fn format(env: &Env, path: &Path, identity: DiskIdentity) -> Result<(), OpenError> {
        let (own, path) = (env.clone(), path.to_owned());
        env.run_blocking(move || identity::format_disk(&own, &path, identity)).await
    }

    /// What `disk.id` says, `None` when there is none.
    pub async fn read_identity(env: &Env, path: &Path) -> Result<Option<DiskIdentity>, OpenError> {
        let (own, path) = (env.clone(), path.to_owned());
        env.run_blocking(move || identity::read_identity(&own, &path)).await
    }

    /// Opens a formatted disk and brings its index up to date. Refuses a disk that is not the expected one.
    pub async fn open(
        env: &Env,
        path: &Path,
        expected: ExpectedIdentity,
        index: IndexOpener,
        options: Options,
    ) -> Result<Disk, OpenError> {
        let (own, path) = (env.clone(), path.to_owned());
        let (reclaim, dead) = mpsc::channel(RECLAIM_LISTS_MAX);
        let opened = env.run_blocking(move || recovery::open(own, path, &expected, &index, options, reclaim)).await?;
        let (log, queue) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let (written, to_commit) = mpsc::channel(WRITTEN_BATCHES_MAX);
        let core = Arc::new(opened.core);
        let appender = Appender::new(core.clone(), opened.active, opened.next_number);
        let tasks = vec![
            env.spawn("disk-append", log::run_append_stage(core.clone(), appender, queue, written)),
            env.spawn("disk-commit", log::run_commit_stage(core.clone(), to_commit)),
            env.spawn("disk-reclaim", log::run_reclaim(core.clone(), dead)),
        ];
        let handle = Handle {
            core,
            log,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            tasks: Mutex::new(tasks),
            checkpointing: tokio::sync::Mutex::default(),
            compacting: tokio::sync::Mutex::default(),
        };
        Ok(Disk { handle: Arc::new(handle) })
    }

    pub fn identity(&self) -> DiskIdentity {
        self.handle.core.identity
    }

    pub fn path(&self) -> PathBuf {
        self.handle.core.path.clone()
    }

    pub fn state(&self) -> DiskState {
        self.handle.core.health.state()
    }

    /// For how long the disk has been at one write or fsync: a disk that hangs reports no error. 0 while it has nothing to do.
    pub fn stuck_for(&self) -> Duration {
        self.handle.core.progress.stuck_for(self.handle.core.env.monotonic())
    }

    /// Begins a shard.
    pub fn writer(&self, shard: ShardId, owner: Owner, profile: Profile) -> ShardWriter {
        let now = self.handle.core.env.now();
        ShardWriter::new(self.handle.clone(), Stream::new(shard, owner, profile, now, Purpose::New))
    }

    /// Reads `count` units from `first`, each verified. They are in memory together: ask for a few at a time.
    pub async fn read_units(&self, shard: ShardId, first: u32, count: u32) -> Result<Vec<Bytes>, ReadError> {
        self.blocking(move |core| read::read_units(core, shard, first, count)).await
    }

    /// Reads a whole shard and its seal and checks them.
    pub async fn verify_shard(&self, shard: ShardId) -> Result<(), ReadError> {
        self.blocking(move |core| read::verify_shard(core, shard)).await
    }

    /// What the index knows of a shard; nothing is read from the segments.
    pub async fn stat(&self, shard: ShardId) -> Result<ShardSummary, ReadError> {
        self.blocking(move |core| read::entry_of(core, shard).map(|entry| ShardSummary::of(shard, &entry))).await
    }

    /// The shards after `after` in id order, at most `limit` (and never more than 10,000); fewer mean the end.
    pub async fn shards(&self, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardSummary>, ReadError> {
        let limit = limit.min(LIST_MAX);
        let page = self.blocking(move |core| {
            core.index.page(after, limit).map_err(|source| {
                core.index_failed(&source);
                ReadError::Index { disk: core.identity.disk, source }
            })
        });
        Ok(page.await?.iter().map(|(shard, entry)| ShardSummary::of(*shard, entry)).collect())
    }

    /// Deletes shards; `Ok` means durably, absent ones are fine. Their space is given back soon after. Works on a full disk.
    pub async fn delete_shards(&self, shards: Vec<ShardId>) -> Result<(), WriteError> {
        self.handle.ask(|reply| Append::Delete { shards, reply }).await
    }

    /// Bounds the work of the next opening: everything so far is then durably in the index. Call it now and then.
    pub async fn checkpoint(&self) -> Result<(), WriteError> {
        self.handle.checkpoint().await.map(|_| ())
    }

    /// Rewrites the segment that gains most, if one is worth it. Call it in the background until it returns `None`.
    pub async fn compact_once(&self) -> Result<Option<Compaction>, WriteError> {
        compaction::compact_once(&self.handle).await
    }

    /// Space and state. An error means the file system does not answer; the disk is then dead.
    pub async fn usage(&self) -> Result<Usage, WriteError> {
        self.blocking(|core| {
            let space = core.env.fs.space(&core.path).map_err(|error| {
                core.health.kill(format_args!("cannot tell the free space of {}: {error}", core.path.display()))
            })?;
            if space.available_bytes >= core.options.segment_bytes.saturating_add(core.options.reserve_bytes) {
                core.health.set_room();
            }
            let (segment_bytes, live_bytes) = core.segments.totals();
            Ok(Usage {
                total_bytes: space.total_bytes,
                available_bytes: space.available_bytes.saturating_sub(core.options.reserve_bytes),
                live_bytes,
                dead_bytes: segment_bytes - live_bytes,
                shards: core.shards.load(Ordering::Relaxed),
                quarantined: core.quarantine.len() as u64,
                segments: core.segments.fills().len() as u64,
                state: core.health.state(),
            })
        })
        .await
    }

    /// Checks that the directory still is this disk (D23, D24); when it is not, the disk is dead from now on.
    pub async fn check_identity(&self) -> Result<(), WriteError> {
        self.blocking(|core| {
            identity::check_unchanged(&core.env, &core.path, &core.identity, core.device).map_err(|why| core.health.kill(why))
        })
        .await
    }

    /// Finishes what is queued, checkpoints, stops the disk's tasks and gives its lock back. Other handles then get `Closed`.
    /// The index's files stay open until the last handle is dropped.
    pub async fn close(self) -> Result<(), WriteError> {
        let checkpoint = self.handle.checkpoint().await;
        if let Ok(slot) = self.handle.reserve().await {
            slot.send(Append::Close);
        }
        let tasks = std::mem::take(&mut *self.handle.tasks.lock());
        let mut tasks = tasks.into_iter();
        for stage in tasks.by_ref().take(2) {
            stage.join().await;
        }
        for reclaim in tasks {
            reclaim.stop().await;
        }
        self.handle.core.lock.lock().take();
        checkpoint.map(|_| ())
    }

    pub(crate) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Core) -> T + Send + 'static) -> T {
        let core = self.handle.core.clone();
        self.handle.core.env.run_blocking(move || work(&core)).await
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("disk", &self.identity().disk).field("path", &self.handle.core.path).finish()
    }
}
