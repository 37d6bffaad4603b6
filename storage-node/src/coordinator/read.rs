//! Streams a range of a chunk.
//!
//! The first stripe is read before the call returns, so that a chunk that cannot be read is an error before the first byte of
//! a response. The others are read ahead by a task, at most [`STRIPES_AHEAD_MAX`] of them; dropping the stream stops it.
//! When the range is the whole chunk, its last stripe is handed on only after the chunk's hash was found right: the unit
//! checksums catch rot on the disks, this catches everything else between the write's hash and here (K2).

use bytes::Bytes;
use futures::StreamExt;
use placement_types::{ByteRange, CHUNK_BYTES_MAX, STRIPE_BYTES, TaskHandle};
use storage_node_erasure::Coder;
use storage_node_proto::api::{ByteStream, ChunkError};
use storage_node_proto::object::ChunkEntry;
use tokio::sync::mpsc;

use super::Coordinator;
use super::unit_reader::{UnitReader, slots_of};
use crate::limits::STRIPES_AHEAD_MAX;
use crate::metrics;

type Pieces = Vec<Bytes>;

/// Exactly `range.len()` bytes come, or the stream ends with an error.
pub(crate) async fn read_chunk(
    coordinator: &Coordinator,
    entry: ChunkEntry,
    range: ByteRange,
) -> Result<ByteStream<ChunkError>, ChunkError> {
    check(&entry, range)?;
    if range.is_empty() {
        return Ok(futures::stream::empty().boxed());
    }
    let mut stripes = StripeReader::new(coordinator.clone(), entry, range);
    let first = stripes.next().await?;
    let begun = futures::stream::iter(first.into_iter().map(Ok));
    let left = range.end() - stripes.at;
    if left == 0 {
        return Ok(begun.boxed());
    }
    let (sender, receiver) = mpsc::channel(STRIPES_AHEAD_MAX);
    let task = coordinator.env.spawn("chunk-reader", stripes.run(sender));
    Ok(begun.chain(follow(receiver, task, left)).boxed())
}

pub(super) fn check(entry: &ChunkEntry, range: ByteRange) -> Result<(), ChunkError> {
    let bad = |why: &str| Err(ChunkError::BadMessage { why: why.into() });
    if entry.shards.len() != entry.profile.width() {
        return bad("the entry has another number of shards than its profile");
    }
    if entry.bytes == 0 || u64::from(entry.bytes) > CHUNK_BYTES_MAX {
        return bad("the entry's length is not a chunk's");
    }
    if range.end() > u64::from(entry.bytes) {
        return bad("the range ends beyond the chunk");
    }
    Ok(())
}

/// Reads a range stripe by stripe.
struct StripeReader {
    entry: ChunkEntry,
    range: ByteRange,
    units: UnitReader,
    /// How far the range has been read.
    at: u64,
    /// The hash so far, when the range is the whole chunk.
    hasher: Option<blake3::Hasher>,
    /// Made when the first stripe has to be rebuilt.
    coder: Option<Coder>,
}

impl StripeReader {
    fn new(coordinator: Coordinator, entry: ChunkEntry, range: ByteRange) -> Self {
        let end = u32::try_from(range.end().div_ceil(STRIPE_BYTES)).expect("a chunk has few stripes");
        let hasher = (range.len() == u64::from(entry.bytes)).then(blake3::Hasher::new);
        let units = UnitReader::new(coordinator, entry.clone(), end);
        Self { entry, range, units, at: range.start(), hasher, coder: None }
    }

    /// The bytes of the range in the stripe that `at` lies in, as pieces in order.
    async fn next(&mut self) -> Result<Pieces, ChunkError> {
        let profile = self.entry.profile;
        let stripe = self.at / STRIPE_BYTES;
        let whole = profile.stripe_range(u64::from(self.entry.bytes), stripe).expect("the stripe lies in the chunk");
        let unit_bytes = profile.unit_bytes(whole.len());
        let (start, end) = (self.at - whole.start(), self.range.end().min(whole.end()) - whole.start());
        let wanted = slots_of(profile, unit_bytes, start, end);
        let stripe = u32::try_from(stripe).expect("a chunk has few stripes");
        let mut units = self.units.stripe(stripe, unit_bytes, wanted.clone()).await?;
        if !wanted.clone().all(|index| units[index].is_some()) {
            metrics::stripe_rebuilt();
            let coder = self.coder.get_or_insert_with(|| Coder::new(profile));
            coder.rebuild_data(&mut units).map_err(|error| self.units.not_rebuilt(error.to_string()))?;
        }
        let mut pieces = Vec::with_capacity(wanted.len());
        for index in wanted {
            let unit = units[index].as_ref().expect("it was read or rebuilt");
            let base = index as u64 * unit_bytes;
            let from = start.saturating_sub(base);
            let to = (end - base).min(unit_bytes);
            pieces.push(unit.slice(from as usize..to as usize));
        }
        self.at = whole.start() + end;
        self.check_hash(&pieces)?;
        Ok(pieces)
    }

    fn check_hash(&mut self, pieces: &Pieces) -> Result<(), ChunkError> {
        let Some(hasher) = &mut self.hasher else { return Ok(()) };
        for piece in pieces {
            hasher.update(piece);
        }
        if self.at == self.range.end() && hasher.finalize() != self.entry.hash {
            metrics::chunk_hash_wrong();
            tracing::error!(chunk = %self.entry.chunk, "every unit of a chunk is sound, but the chunk's hash is wrong");
            return Err(self.units.not_rebuilt("the chunk's hash is wrong".into()));
        }
        Ok(())
    }

    /// Reads the rest into the channel. Ends early when the consumer is gone.
    async fn run(mut self, sender: mpsc::Sender<Result<Pieces, ChunkError>>) {
        while self.at < self.range.end() {
            let pieces = self.next().await;
            let failed = pieces.is_err();
            if sender.send(pieces).await.is_err() || failed {
                return;
            }
        }
    }
}

/// The pieces from the channel; an error when the task ends before `left` bytes came. Owns the task.
fn follow(receiver: mpsc::Receiver<Result<Pieces, ChunkError>>, task: TaskHandle, left: u64) -> ByteStream<ChunkError> {
    futures::stream::unfold(Some((receiver, task, left)), |state| async {
        let (mut receiver, task, left) = state?;
        if left == 0 {
            return None;
        }
        match receiver.recv().await {
            Some(Ok(pieces)) => {
                let came: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
                let left = left.checked_sub(came).expect("the reader stays in its range");
                let pieces: Vec<_> = pieces.into_iter().map(Ok).collect();
                Some((futures::stream::iter(pieces), Some((receiver, task, left))))
            }
            Some(Err(error)) => Some((futures::stream::iter(vec![Err(error)]), None)),
            None => {
                let error = ChunkError::BodyFailed { why: "the reader was stopped".into() };
                Some((futures::stream::iter(vec![Err(error)]), None))
            }
        }
    })
    .flatten()
    .boxed()
}
