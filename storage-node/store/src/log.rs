//! The log's front: what can be asked of it, the state its stages share, and the two tasks that serve it.
//!
//! The *append stage* writes records in the order of the queue and fixes what each request means (is the shard there already,
//! does the delete hit anything). The *commit stage* fsyncs what was written, applies it to the index and answers. They are two
//! tasks so that units go on being written while an fsync runs; whatever was written meanwhile shares the next fsync.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use placement_types::{Env, ShardId};
use storage_node_kv::KvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::append::Appender;
use crate::commit::{Committer, Written};
use crate::disk::Options;
use crate::error::WriteError;
use crate::format::{Entry, Hash, RecordKey, Tombstone};
use crate::health::Health;
use crate::identity::DiskIdentity;
use crate::index::Index;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use crate::position::{Extent, Position};
use crate::progress::{Progress, Stage};
use crate::quarantine::Quarantine;
use crate::segment::Segments;
use crate::writer::Stream;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// A unit on its way to the disk.
pub(crate) struct UnitData {
    pub index: u32,
    pub data: Bytes,
    pub hash: Hash,
    /// Its share of the queue's memory; freed once it is written.
    pub _room: OwnedSemaphorePermit,
}

/// What the log is asked to do, in order.
pub(crate) enum Append {
    Unit {
        stream: Arc<Stream>,
        unit: UnitData,
    },
    /// Writes the last unit and makes the stream a shard.
    Seal {
        stream: Arc<Stream>,
        last: Option<UnitData>,
        reply: Reply<()>,
    },
    Delete {
        shards: Vec<ShardId>,
        reply: Reply<()>,
    },
    /// Writes tombstones again that a removed segment held.
    Keep {
        tombstones: Vec<Tombstone>,
        reply: Reply<()>,
    },
    /// Puts a whole shard that is in the log into the index, which has lost it.
    Adopt {
        shard: ShardId,
        entry: Entry,
        reply: Reply<()>,
    },
    /// Writes nothing more to a segment, whose file is gone.
    Retire {
        segment: u32,
        reply: Reply<()>,
    },
    /// Answers once everything before it is durable and in the index, with the position behind it.
    Barrier {
        reply: Reply<Position>,
    },
    Close,
}

impl Append {
    fn bytes(&self) -> usize {
        match self {
            Append::Unit { unit, .. } => unit.data.len(),
            Append::Seal { last, .. } => last.as_ref().map_or(0, |unit| unit.data.len()),
            Append::Delete { .. }
            | Append::Keep { .. }
            | Append::Adopt { .. }
            | Append::Retire { .. }
            | Append::Barrier { .. }
            | Append::Close => 0,
        }
    }
}

/// What a disk's tasks and handles share.
pub(crate) struct Core {
    pub env: Env,
    pub path: PathBuf,
    pub identity: DiskIdentity,
    /// The file system's number at open (D23).
    pub device: u64,
    pub key: RecordKey,
    pub options: Options,
    pub segments: Segments,
    pub index: Index,
    pub health: Health,
    pub progress: Progress,
    pub pending: Pending,
    pub quarantine: Quarantine,
    pub durable: Durable,
    pub shards: AtomicU64,
    pub reclaim: mpsc::Sender<Vec<Extent>>,
    /// Held while the disk is open; `close` gives it back.
    pub lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl Core {
    /// The shard as the log has it, whether or not its commit ran yet.
    pub fn latest(&self, shard: ShardId) -> Result<Option<Arc<Entry>>, WriteError> {
        if let Some(entry) = self.pending.get(shard) {
            return Ok(entry);
        }
        // The pending change may be applied and forgotten between the two looks; the index then has it.
        let entry = self.index.get(shard).map_err(|error| self.index_failed(&error))?;
        Ok(entry.map(Arc::new))
    }

    pub fn index_failed(&self, error: &KvError) -> WriteError {
        self.health.kill(format_args!("its index failed: {error}"))
    }

    /// Gives records of an unsealed stream up: they were never acknowledged, so nobody can miss them.
    pub fn abandon(&self, extents: Vec<Extent>) {
        self.segments.abandon(&extents);
        self.punch_later(extents);
    }

    /// Has the extents punched when there is time. Only space depends on it.
    pub fn punch_later(&self, extents: Vec<Extent>) {
        if !extents.is_empty() && self.reclaim.try_send(Extent::merge(extents)).is_err() {
            tracing::debug!(disk = %self.identity.disk, "too much to punch at once, left to compaction");
        }
    }
}

/// Everything before this position was fsynced. It never goes back.
pub(crate) struct Durable(AtomicU64);

impl Durable {
    pub fn new(upto: Position) -> Self {
        Self(AtomicU64::new(upto.to_u64()))
    }

    pub fn upto(&self) -> Position {
        Position::from_u64(self.0.load(Ordering::Acquire))
    }

    pub fn advance(&self, upto: Position) {
        self.0.fetch_max(upto.to_u64(), Ordering::AcqRel);
    }
}

/// Changes that are in the log but not yet in the index: decisions must see them, readers must not.
#[derive(Default)]
pub(crate) struct Pending {
    shards: Mutex<BTreeMap<ShardId, PendingShard>>,
}

struct PendingShard {
    at: Position,
    /// `None`: deleted.
    entry: Option<Arc<Entry>>,
}

impl Pending {
    /// `None` when nothing is pending; `Some(None)` when a delete is.
    fn get(&self, shard: ShardId) -> Option<Option<Arc<Entry>>> {
        self.shards.lock().get(&shard).map(|pending| pending.entry.clone())
    }

    pub fn insert(&self, shard: ShardId, at: Position, entry: Option<Arc<Entry>>) {
        self.shards.lock().insert(shard, PendingShard { at, entry });
    }

    /// The change written at `at` is in the index; a later one stays pending.
    pub fn applied(&self, shard: ShardId, at: Position) {
        let mut shards = self.shards.lock();
        if shards.get(&shard).is_some_and(|pending| pending.at == at) {
            shards.remove(&shard);
        }
    }
}

/// Serves the queue until `Close` or until every handle is gone.
pub(crate) async fn run_append_stage(
    core: Arc<Core>,
    mut appender: Appender,
    mut queue: mpsc::Receiver<Append>,
    written: mpsc::Sender<Written>,
) {
    while let Some(first) = queue.recv().await {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while bytes < BATCH_BYTES_MAX && batch.len() < BATCH_MESSAGES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.bytes();
            batch.push(next);
        }
        let at_work = core.progress.begin(Stage::Append, core.env.monotonic());
        let closing = batch.iter().any(|message| matches!(message, Append::Close));
        let (back, result) = core
            .env
            .run_blocking(move || {
                let result = appender.write_batch(batch);
                (appender, result)
            })
            .await;
        appender = back;
        drop(at_work);
        if written.send(result).await.is_err() || closing {
            return;
        }
    }
}

/// Serves what the append stage wrote until that stage ends.
pub(crate) async fn run_commit_stage(core: Arc<Core>, mut written: mpsc::Receiver<Written>) {
    let mut committer = Committer::new(core.clone());
    while let Some(first) = written.recv().await {
        committer.collect(first);
        // Everything written while the last fsync ran shares the next one.
        while let Ok(next) = written.try_recv() {
            committer.collect(next);
        }
        if committer.is_awaited() {
            let _at_work = core.progress.begin(Stage::Commit, core.env.monotonic());
            committer = core
                .env
                .run_blocking(move || {
                    committer.commit();
                    committer
                })
                .await;
        }
    }
}

/// Punches holes where shards died. A hole is never needed, so errors only cost space until compaction.
pub(crate) async fn run_reclaim(core: Arc<Core>, mut dead: mpsc::Receiver<Vec<Extent>>) {
    while let Some(extents) = dead.recv().await {
        let punching = core.clone();
        core.env
            .run_blocking(move || {
                for extent in extents.into_iter().filter(|extent| punching.segments.exists(extent.at.segment)) {
                    let file = punching.segments.file_to_write(extent.at.segment);
                    if let Err(error) = file.and_then(|file| file.punch_hole(extent.at.offset(), extent.bytes())) {
                        tracing::debug!(disk = %punching.identity.disk, %error, "cannot punch a hole");
                    }
                }
            })
            .await;
    }
}
