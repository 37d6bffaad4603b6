//! Takes a body to disks: small ones stay in memory for the metadata entry, larger ones are cut into chunks, each streamed to
//! the storage node that coordinates it.
//!
//! Guarantees: what [`StripeWriter::write`] returns is complete (the source's `finish` proved it), every chunk is
//! acknowledged by its quorum, and its BLAKE3 as computed here equals the coordinator's. Until then, and whenever it fails,
//! nothing refers to what was written and it is deleted (see [`StagedChunks`]).
//!
//! Memory per upload is [`WRITE_PIECES_MAX`] pieces per chunk in flight: the bounded channel to the coordinator is the back
//! pressure. Bytes that left are not kept, so a coordinator that fails after it took the first byte of a chunk fails the
//! request with 503, and the client sends it again; before that byte another coordinator is asked.
//!
//! ```text
//! source -> pieces -> [BLAKE3] -> channel -> coordinator (stripes, shards, fsync) -> ChunkEntry
//!                         while the next chunk is sent, the previous one waits for its fsyncs
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use gateway_s3::{S3Error, UploadBody, VerifiedUpload};
use parking_lot::Mutex;
use placement_types::{CHUNK_BYTES_MAX, ChunkId, Env, INLINE_BYTES_MAX, Profile, TaskHandle};
use storage_node_proto::api::{ByteStream, ChunkError, Owner, WriteChunk};
use storage_node_proto::object::ChunkEntry;
use tokio::sync::{mpsc, oneshot};

use crate::coordinators::Coordinators;
use crate::limits::{CHUNK_STALL, CHUNKS_IN_FLIGHT_MAX, COORDINATORS_MAX, WRITE_PIECE_BYTES_MAX, WRITE_PIECES_MAX};
use crate::staged_data::{StagedChunks, StagedData};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The source failed or its verification did; the text is the client's.
    #[error(transparent)]
    Body(S3Error),
    #[error("the body is larger than may be stored at once")]
    TooLarge,
    #[error("no cluster map is known")]
    NoMap,
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("the coordinator of chunk {chunk} makes no progress")]
    Stalled { chunk: ChunkId },
    /// The coordinator acknowledged something else than it was sent.
    #[error("chunk {chunk} was acknowledged wrongly: {why}")]
    WrongEntry { chunk: ChunkId, why: &'static str },
}

/// Bytes to store, with the proof that they are the right ones: a client's upload, or the source of a copy.
pub trait BodySource: Send {
    /// The length, when it was declared.
    fn declared_bytes(&self) -> Option<u64>;

    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, S3Error>>> + Send;

    /// To be called after the end. `Ok` only when all expectations on the body held.
    fn finish(self) -> impl Future<Output = Result<VerifiedUpload, S3Error>> + Send;
}

impl BodySource for UploadBody {
    fn declared_bytes(&self) -> Option<u64> {
        UploadBody::declared_bytes(self)
    }

    async fn next(&mut self) -> Option<Result<Bytes, S3Error>> {
        UploadBody::next(self).await
    }

    async fn finish(self) -> Result<VerifiedUpload, S3Error> {
        UploadBody::finish(self).await
    }
}

/// Writes bodies.
#[derive(Clone)]
pub struct StripeWriter {
    coordinators: Coordinators,
}

impl StripeWriter {
    pub fn new(coordinators: Coordinators) -> Self {
        Self { coordinators }
    }

    /// Which nodes to ask about a chunk.
    pub fn coordinators(&self) -> &Coordinators {
        &self.coordinators
    }

    /// Stores a body of at most `bytes_max` for `owner`. Dropping the call deletes what was written.
    pub async fn write(
        &self,
        mut body: impl BodySource,
        owner: Owner,
        bytes_max: u64,
    ) -> Result<(StagedData, VerifiedUpload), StoreError> {
        let declared = body.declared_bytes();
        if declared.is_some_and(|bytes| bytes > bytes_max) {
            return Err(StoreError::TooLarge);
        }
        let mut upload = Upload {
            env: self.coordinators.env.clone(),
            coordinators: self.coordinators.clone(),
            owner,
            declared,
            sent: 0,
            current: None,
            staged: StagedChunks::new(self.coordinators.clone()),
        };
        let mut small = BytesMut::new();
        let mut total = 0u64;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(StoreError::Body)?;
            total += piece.len() as u64;
            if total > bytes_max {
                return Err(StoreError::TooLarge);
            }
            if total <= INLINE_BYTES_MAX {
                small.extend_from_slice(&piece);
                continue;
            }
            if !small.is_empty() {
                upload.send(small.split().freeze()).await?;
            }
            upload.send(piece).await?;
        }
        // Nothing is committed before this succeeded: lengths, digests and trailers, all of them.
        let verified = body.finish().await.map_err(StoreError::Body)?;
        assert!(verified.bytes == total, "the source verified as many bytes as it gave");
        if total <= INLINE_BYTES_MAX {
            return Ok((StagedData::inline(owner.txn, small.freeze(), self.coordinators.clone()), verified));
        }
        let staged = upload.complete().await?;
        Ok((StagedData::chunked(owner.txn, total, staged), verified))
    }
}

/// One body on its way to chunks.
struct Upload {
    env: Env,
    coordinators: Coordinators,
    owner: Owner,
    declared: Option<u64>,
    /// Bytes given to chunks so far.
    sent: u64,
    current: Option<OpenChunk>,
    staged: StagedChunks,
}

/// The chunk that bytes are being sent to.
struct OpenChunk {
    pending: PendingChunk,
    hasher: blake3::Hasher,
}

/// A chunk whose acknowledgement is awaited.
pub struct PendingChunk {
    chunk: ChunkId,
    profile: Profile,
    bytes: u64,
    /// `None` once all bytes were sent.
    sender: Option<mpsc::Sender<Result<Bytes, ChunkError>>>,
    hash: Option<blake3::Hash>,
    result: oneshot::Receiver<Result<ChunkEntry, ChunkError>>,
    /// Aborted when the write is given up.
    task: TaskHandle,
}

impl PendingChunk {
    /// Tells the coordinator that the body failed and waits for what it makes of that; an entry when it had all bytes already.
    pub async fn abandon(mut self) -> Result<ChunkEntry, ChunkError> {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Err(ChunkError::BodyFailed { why: "the upload failed".into() })).await;
        }
        let result = self.result.await.unwrap_or_else(|_| Err(unreachable_error("the write was given up")));
        drop(self.task);
        result
    }
}

impl Upload {
    /// Sends a piece, opening and closing chunks as their limit asks.
    async fn send(&mut self, mut piece: Bytes) -> Result<(), StoreError> {
        while !piece.is_empty() {
            if self.current.is_none() {
                self.current = Some(self.open()?);
            }
            let open = self.current.as_mut().expect("opened just above");
            let room = CHUNK_BYTES_MAX - open.pending.bytes;
            let take = piece.len().min(WRITE_PIECE_BYTES_MAX).min(usize::try_from(room).unwrap_or(usize::MAX));
            let part = piece.split_to(take);
            open.hasher.update(&part);
            open.pending.bytes += take as u64;
            self.sent += take as u64;
            let full = open.pending.bytes == CHUNK_BYTES_MAX;
            let chunk = open.pending.chunk;
            let sender = open.pending.sender.as_ref().expect("an open chunk takes bytes");
            let sent = self.env.timeout(CHUNK_STALL, sender.send(Ok(part))).await;
            match sent {
                Ok(Ok(())) => {}
                // The coordinator's task ended although bytes were owed: its result says why.
                Ok(Err(_closed)) => {
                    let open = self.current.take().expect("opened above");
                    return Err(self.failure_of(open.pending).await);
                }
                Err(placement_types::Elapsed) => {
                    self.abandon_current();
                    return Err(StoreError::Stalled { chunk });
                }
            }
            if full {
                self.close().await?;
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<OpenChunk, StoreError> {
        let map = self.coordinators.map().ok_or(StoreError::NoMap)?;
        let chunk = ChunkId::random(&self.env);
        let left = self.declared.map(|declared| declared.saturating_sub(self.sent).min(CHUNK_BYTES_MAX));
        let bytes = left.filter(|left| *left > 0).map(|left| u32::try_from(left).expect("a chunk's length fits"));
        let request = WriteChunk { chunk, owner: self.owner, profile: map.profile, bytes };
        let (sender, receiver) = mpsc::channel(WRITE_PIECES_MAX);
        let (answer, result) = oneshot::channel();
        let candidates = self.coordinators.to_write(&map, chunk);
        let coordinators = self.coordinators.clone();
        let task = self.env.spawn("write a chunk", async move {
            let feed = Arc::new(Feed { receiver: Mutex::new(receiver), started: AtomicBool::new(false) });
            let _ = answer.send(write_through(&coordinators, candidates, request, feed).await);
        });
        let pending = PendingChunk { chunk, profile: map.profile, bytes: 0, sender: Some(sender), hash: None, result, task };
        Ok(OpenChunk { pending, hasher: blake3::Hasher::new() })
    }

    /// Ends the current chunk; the one before it must be acknowledged before yet another is opened.
    async fn close(&mut self) -> Result<(), StoreError> {
        let Some(mut open) = self.current.take() else { return Ok(()) };
        open.pending.hash = Some(open.hasher.finalize());
        // Dropping the sender is the end of the chunk's body.
        open.pending.sender = None;
        self.staged.pending.push_back(open.pending);
        if self.staged.pending.len() >= CHUNKS_IN_FLIGHT_MAX {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn complete(mut self) -> Result<StagedChunks, StoreError> {
        self.close().await?;
        while !self.staged.pending.is_empty() {
            self.settle_oldest().await?;
        }
        let Self { ref mut staged, ref coordinators, .. } = self;
        Ok(std::mem::replace(staged, StagedChunks::new(coordinators.clone())))
    }

    /// Waits for the acknowledgement of the oldest pending chunk, and checks it.
    async fn settle_oldest(&mut self) -> Result<(), StoreError> {
        let Some(oldest) = self.staged.pending.front_mut() else { return Ok(()) };
        let chunk = oldest.chunk;
        let result = self.env.timeout(CHUNK_STALL, &mut oldest.result).await;
        let Ok(result) = result else { return Err(StoreError::Stalled { chunk }) };
        let settled = self.staged.pending.pop_front().expect("it is the front");
        let entry = result.unwrap_or_else(|_| Err(unreachable_error("the process is shutting down")))?;
        // From here on a drop deletes it.
        self.staged.acked.push(entry);
        let entry = self.staged.acked.last().expect("just pushed");
        check_entry(entry, &settled).map_err(|why| StoreError::WrongEntry { chunk, why })
    }

    /// Why the coordinator of an unfinished chunk takes no more bytes.
    async fn failure_of(&mut self, pending: PendingChunk) -> StoreError {
        match self.env.timeout(CHUNK_STALL, pending.result).await {
            Ok(Ok(Err(error))) => StoreError::Chunk(error),
            Ok(Ok(Ok(entry))) => {
                self.staged.acked.push(entry);
                StoreError::WrongEntry { chunk: pending.chunk, why: "acknowledged before its end" }
            }
            Ok(Err(_)) => StoreError::Chunk(unreachable_error("the write was given up")),
            Err(placement_types::Elapsed) => StoreError::Stalled { chunk: pending.chunk },
        }
    }

    fn abandon_current(&mut self) {
        if let Some(open) = self.current.take() {
            self.staged.pending.push_back(open.pending);
        }
    }
}

impl Drop for Upload {
    /// A chunk under way is abandoned together with the others, by the drop of `staged` that follows.
    fn drop(&mut self) {
        self.abandon_current();
    }
}

/// What must hold of an acknowledgement before anything may refer to it (I2, I3).
fn check_entry(entry: &ChunkEntry, sent: &PendingChunk) -> Result<(), &'static str> {
    let present: Vec<_> = entry.shards.iter().flatten().collect();
    let mut distinct = present.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if entry.chunk != sent.chunk || entry.profile != sent.profile {
        Err("it is of another chunk")
    } else if u64::from(entry.bytes) != sent.bytes {
        Err("its length differs")
    } else if Some(blake3::Hash::from_bytes(entry.hash)) != sent.hash {
        Err("its hash differs")
    } else if entry.shards.len() != entry.profile.width() || distinct.len() != present.len() {
        Err("its shards are not one per slot on distinct disks")
    } else if present.len() < entry.profile.write_quorum() {
        Err("too few shards are durable")
    } else {
        Ok(())
    }
}

/// The bytes of a chunk, for one coordinator after another as long as none was taken.
struct Feed {
    receiver: Mutex<mpsc::Receiver<Result<Bytes, ChunkError>>>,
    started: AtomicBool,
}

impl Feed {
    fn stream(self: &Arc<Self>) -> ByteStream<ChunkError> {
        let feed = Arc::clone(self);
        stream::poll_fn(move |cx| {
            let item = feed.receiver.lock().poll_recv(cx);
            if let Poll::Ready(Some(_)) = &item {
                feed.started.store(true, Ordering::SeqCst);
            }
            item
        })
        .boxed()
    }
}

async fn write_through(
    coordinators: &Coordinators,
    candidates: Vec<placement_types::NodeId>,
    request: WriteChunk,
    feed: Arc<Feed>,
) -> Result<ChunkEntry, ChunkError> {
    let mut last = unreachable_error("no node is up");
    for candidate in candidates.into_iter().take(COORDINATORS_MAX) {
        let Some(node) = coordinators.node(candidate) else { continue };
        match node.write_chunk(request.clone(), feed.stream()).await {
            Err(error @ (ChunkError::Unreachable { .. } | ChunkError::NoQuorum { .. }))
                if !feed.started.load(Ordering::SeqCst) =>
            {
                tracing::debug!(node = %candidate, %error, "another coordinator is asked");
                last = error;
            }
            verdict => return verdict,
        }
    }
    // Nobody will take bytes any more; closing the channel tells the sender at once.
    feed.receiver.lock().close();
    Err(last)
}

fn unreachable_error(why: &str) -> ChunkError {
    ChunkError::Unreachable { why: why.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use gateway_s3::{Checksum, ChecksumAlgorithm, S3ErrorCode};
    use placement_types::{Slot, TxnId};

    use super::*;
    use crate::double::Cluster;

    /// Gives its pieces, then fails or ends; an end may fail its verification.
    struct Script {
        pieces: VecDeque<Result<Bytes, S3Error>>,
        given: u64,
        verdict: Result<(), S3Error>,
    }

    impl BodySource for Script {
        fn declared_bytes(&self) -> Option<u64> {
            None
        }

        async fn next(&mut self) -> Option<Result<Bytes, S3Error>> {
            let piece = self.pieces.pop_front()?;
            self.given += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            Some(piece)
        }

        async fn finish(self) -> Result<VerifiedUpload, S3Error> {
            let checksum = Checksum::of(ChecksumAlgorithm::Crc32, b"");
            self.verdict.map(|()| VerifiedUpload { bytes: self.given, md5: [0; 16], checksum })
        }
    }

    fn refusal() -> S3Error {
        S3ErrorCode::IncompleteBody.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_fails_leaves_nothing_behind() {
        let cluster = Cluster::new(1);
        let gw = cluster.gateway();
        let owner = Owner { txn: TxnId::from_u128(1), slot: Slot(1) };
        let megabytes = |count: usize| vec![Ok(Bytes::from(vec![1; 1 << 20])); count];
        let breaking = |count: usize| [megabytes(count), vec![Err(refusal())]].concat();
        for (pieces, verdict) in [
            (breaking(0), Ok(())),
            (breaking(1), Ok(())),
            (breaking(16), Ok(())),
            (breaking(17), Ok(())),
            (breaking(40), Ok(())),
            (megabytes(40), Err(refusal())),
            (megabytes(16), Err(refusal())),
            (vec![Ok(Bytes::from_static(b"small"))], Err(refusal())),
        ] {
            let count = pieces.len();
            let script = Script { pieces: pieces.into(), given: 0, verdict };
            let error = gw.writer.write(script, owner, 1 << 30).await.map(drop).unwrap_err();
            assert!(matches!(error, StoreError::Body(error) if error.code == S3ErrorCode::IncompleteBody), "{count} pieces");
            cluster.env.sleep(Duration::from_secs(60)).await;
            assert_eq!(cluster.chunks.shards(), 0, "{count} pieces");
        }
        let script = Script { pieces: megabytes(5).into(), given: 0, verdict: Ok(()) };
        assert!(matches!(gw.writer.write(script, owner, 4 << 20).await.map(drop), Err(StoreError::TooLarge)));
        assert_eq!(cluster.groups.applied.lock().len(), 0, "nothing was proposed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_cut_at_chunk_boundaries_whatever_its_pieces() {
        let cluster = Cluster::new(2);
        let gw = cluster.gateway();
        let owner = Owner { txn: TxnId::from_u128(1), slot: Slot(1) };
        let bytes = 2 * CHUNK_BYTES_MAX + 1;
        for piece_bytes in [700_000u64, 5 << 20, bytes] {
            let content = Bytes::from(vec![3; usize::try_from(bytes).unwrap()]);
            let pieces = content.chunks(usize::try_from(piece_bytes).unwrap()).map(|piece| Ok(content.slice_ref(piece)));
            let script = Script { pieces: pieces.collect(), given: 0, verdict: Ok(()) };
            let (staged, _) = gw.writer.write(script, owner, bytes).await.unwrap();
            let Some(storage_node_proto::object::Data::Chunks(entries)) = staged.data() else { panic!("it is not small") };
            let lengths: Vec<u64> = entries.iter().map(|entry| u64::from(entry.bytes)).collect();
            assert_eq!(lengths, [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 1]);
        }
    }
}
