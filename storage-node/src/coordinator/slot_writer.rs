//! Writes one shard of a chunk, in a task of its own, behind a short queue.
//!
//! What makes its acknowledgement true: the disk's `write_shard` returned `Ok` *and* had taken every unit and the explicit end.
//! The queue ends in one of two ways, never by silence: [`Item::End`] is a complete shard, a dropped queue reaches the disk as
//! an error. So neither a coordinator that gives up nor a writer that stops reading early can make a short shard count (P11).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use placement_types::{DiskId, Env, TaskHandle};
use storage_node_proto::api::{ByteStream, ShardError, WriteShard};
use tokio::sync::{mpsc, oneshot};

use crate::holders::{Holder, Standing};
use crate::limits::UNITS_QUEUED_MAX;

#[derive(Debug)]
enum Item {
    Unit(Bytes),
    End,
}

/// What became of a unit offered to a writer.
pub(crate) enum Push {
    Taken,
    /// The queue is full; here is the unit back.
    Lags(Bytes),
    /// The writer has ended.
    Failed,
}

/// A shard being written. Dropping it abandons the shard: nothing incomplete is ever kept as complete.
pub(crate) struct SlotWriter {
    pub index: usize,
    pub disk: DiskId,
    /// Not expected to answer: nobody waits long for it.
    pub doubtful: bool,
    queue: mpsc::Sender<Item>,
    outcome: oneshot::Receiver<Result<(), ShardError>>,
    task: TaskHandle,
}

impl SlotWriter {
    pub fn start(env: &Env, index: usize, holder: Holder, request: WriteShard) -> Self {
        let (queue, items) = mpsc::channel(UNITS_QUEUED_MAX);
        let (report, outcome) = oneshot::channel();
        let (disk, doubtful) = (holder.disk, holder.standing == Standing::Doubtful);
        let task = env.spawn("shard-writer", async move {
            let ended = Arc::new(AtomicBool::new(false));
            let units = unit_stream(items, ended.clone());
            let result = holder.shards.write_shard(request, units).await.and_then(|()| match ended.load(Ordering::Acquire) {
                true => Ok(()),
                false => Err(ShardError::BodyFailed { why: "the disk acknowledged before it had every unit".into() }),
            });
            // The coordinator may have stopped waiting: then nobody counts this shard.
            let _ = report.send(result);
        });
        Self { index, disk, doubtful, queue, outcome, task }
    }

    /// Offers a unit without waiting.
    pub fn offer(&self, unit: Bytes) -> Push {
        match self.queue.try_send(Item::Unit(unit)) {
            Ok(()) => Push::Taken,
            Err(mpsc::error::TrySendError::Full(Item::Unit(unit))) => Push::Lags(unit),
            Err(_) => Push::Failed,
        }
    }

    /// Waits for a place in the queue. `false` when the writer has ended.
    pub fn push(&self, unit: Bytes) -> impl Future<Output = bool> + Send + 'static {
        let queue = self.queue.clone();
        async move { queue.send(Item::Unit(unit)).await.is_ok() }
    }

    /// Why a writer that takes no more units ended.
    pub async fn failure(self) -> ShardError {
        match self.outcome.await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => ShardError::BodyFailed { why: "the disk acknowledged before it had every unit".into() },
            Err(_) => ShardError::BodyFailed { why: "the writer was stopped".into() },
        }
    }

    /// Says that there are no more units and waits until they are fsynced.
    pub async fn finish(self) -> Result<(), ShardError> {
        // A closed queue means that the outcome is there already, and it is an error.
        let _ = self.queue.send(Item::End).await;
        let outcome = self.outcome.await;
        self.task.join().await;
        outcome.unwrap_or_else(|_| Err(ShardError::BodyFailed { why: "the writer was stopped".into() }))
    }
}

/// The queue as the stream `write_shard` takes.
fn unit_stream(items: mpsc::Receiver<Item>, ended: Arc<AtomicBool>) -> ByteStream<ShardError> {
    futures::stream::unfold(Some((items, ended)), |state| async {
        let (mut items, ended) = state?;
        match items.recv().await {
            Some(Item::Unit(unit)) => Some((Ok(unit), Some((items, ended)))),
            Some(Item::End) => {
                ended.store(true, Ordering::Release);
                None
            }
            None => Some((Err(ShardError::BodyFailed { why: "the coordinator gave up".into() }), None)),
        }
    })
    .boxed()
}
