//! Reads a run of a chunk: what one call to a coordinator asks for, and the calls to others that finish it when that one fails.
//!
//! A run is as long as its client deserves ([`ChunkRun::open`]): what was asked for and not taken is all that a reading can
//! hold, wherever it is held: in this process, on the way, or on the nodes. A [`Position`] is all that is left of a reading
//! whose client stands still, and all that is needed to go on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use placement_types::{ByteRange, Env, NodeId, STRIPE_BYTES, TaskHandle, TxnId};
use storage_node_proto::api::{ByteStream, ChunkError};
use storage_node_proto::object::{ChunkEntry, Data};
use tokio::sync::oneshot;

use super::pace::Gait;
use super::queue::{Giver, Stalled};
use super::{DataPlace, ObjectReader, Origin, ReadObjectError};
use crate::coordinators::Coordinators;
use crate::limits::{READ_PAUSE, READ_RETRIES_MAX, READ_STALL};

/// What is wanted of a chunk.
struct Wanted {
    txn: TxnId,
    /// Which of the record's chunks it is: that stays, whatever is done to the chunk's shards and coding.
    index: usize,
    entry: ChunkEntry,
    range: ByteRange,
}

/// How far a chunk has been read.
#[derive(Clone)]
pub struct Position {
    wanted: Arc<Wanted>,
    /// Bytes of the range before it.
    done: u64,
    /// The hash of those bytes, when there are any and the range is the whole chunk.
    hasher: Option<Box<blake3::Hasher>>,
}

impl Position {
    pub fn start(txn: TxnId, index: usize, entry: ChunkEntry, range: ByteRange) -> Self {
        Self { wanted: Arc::new(Wanted { txn, index, entry, range }), done: 0, hasher: None }
    }

    /// The position behind bytes that begin at this one. No hash ever takes in a byte twice: each position has its own.
    pub fn after(&self, bytes: &[u8]) -> Self {
        let mut after = self.clone();
        after.done += bytes.len() as u64;
        if self.wanted.range.len() == u64::from(self.wanted.entry.bytes) {
            after.hasher.get_or_insert_default().update(bytes);
        }
        after
    }

    pub fn is_in_chunk_of(&self, other: &Position) -> bool {
        (self.wanted.txn, self.wanted.index) == (other.wanted.txn, other.wanted.index)
    }

    /// At the end of a chunk that was read whole: whether its hash is right.
    fn check_hash(&self) -> Result<(), ReadObjectError> {
        let Wanted { entry, range, .. } = &*self.wanted;
        match &self.hasher {
            Some(hasher) if self.done == range.len() && hasher.finalize() != blake3::Hash::from_bytes(entry.hash) => {
                Err(ReadObjectError::WrongHash { chunk: entry.chunk })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where a run from here ends: with the range, or for a client that must yet show that it is quick, with the stripe.
    fn run_end(&self, gait: Gait) -> u64 {
        let range = self.wanted.range;
        let stripe_end = ((range.start() + self.done) / STRIPE_BYTES + 1) * STRIPE_BYTES - range.start();
        match gait {
            Gait::Brisk => range.len(),
            Gait::Slow | Gait::Steady => range.len().min(stripe_end),
        }
    }
}

/// Why a reading does not go on.
pub enum Halt {
    /// Its client is too slow for what is held for it.
    TooSlow,
    Failed(ReadObjectError),
}

impl From<Stalled> for Halt {
    fn from(Stalled: Stalled) -> Self {
        Halt::TooSlow
    }
}

impl From<ReadObjectError> for Halt {
    fn from(error: ReadObjectError) -> Self {
        Halt::Failed(error)
    }
}

/// A part of a chunk, being read.
pub struct ChunkRun {
    reader: ObjectReader,
    place: DataPlace,
    position: Position,
    /// Of the range.
    end: u64,
    /// Nodes still to be asked.
    candidates: VecDeque<NodeId>,
    retries: usize,
    reread: bool,
    opening: Opening,
}

/// A call for a chunk stream, running ahead in its own task.
struct Opening {
    stream: oneshot::Receiver<Result<ByteStream<ChunkError>, ChunkError>>,
    _task: TaskHandle,
}

impl ChunkRun {
    /// Begins to open the chunk where it was left.
    pub fn open(reader: ObjectReader, place: DataPlace, position: Position, gait: Gait) -> Result<Self, ReadObjectError> {
        let end = position.run_end(gait);
        let mut candidates = candidates(&reader, &position)?;
        let opening = open(&reader.coordinators, &mut candidates, &position, end)?;
        Ok(Self { reader, place, position, end, candidates, retries: 0, reread: false, opening })
    }

    /// Where the reading goes on when this run is over, or given up; `None` at the end of the range.
    pub fn rest(self) -> Option<Position> {
        (self.position.done < self.position.wanted.range.len()).then_some(self.position)
    }

    /// Whether nothing of its range is left for another run.
    pub fn is_last(&self) -> bool {
        self.end == self.position.wanted.range.len()
    }

    /// Hands the run on, piece by piece, the chunk's last one only after its hash was right.
    pub async fn deliver(&mut self, giver: &Giver<Origin>) -> Result<(), Halt> {
        let env = self.reader.coordinators.env.clone();
        let mut stream = self.opened(&env).await;
        while self.position.done < self.end {
            let piece = match &mut stream {
                Err(error) => Err(error.clone()),
                Ok(stream) => next_piece(&env, stream, self.end - self.position.done).await,
            };
            match piece {
                Ok(piece) => {
                    let after = self.position.after(&piece);
                    after.check_hash()?;
                    giver.room_for(piece.len()).await?;
                    giver.add(piece, Some(std::mem::replace(&mut self.position, after)));
                    // It was brisk when this was opened.
                    if giver.gait() == Gait::Slow && self.end - self.position.done > STRIPE_BYTES {
                        return Err(Halt::TooSlow);
                    }
                }
                Err(error) => {
                    drop(stream);
                    self.reopen(error).await?;
                    stream = self.opened(&env).await;
                }
            }
        }
        Ok(())
    }

    async fn opened(&mut self, env: &Env) -> Result<ByteStream<ChunkError>, ChunkError> {
        match env.timeout(READ_STALL, &mut self.opening.stream).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ChunkError::Unreachable { why: "the process is shutting down".into() }),
            Err(placement_types::Elapsed) => Err(ChunkError::Unreachable { why: "no answer in time".into() }),
        }
    }

    /// Decides what to do about a failure, and opens the rest of the run accordingly.
    async fn reopen(&mut self, error: ChunkError) -> Result<(), ReadObjectError> {
        self.retries += 1;
        if self.retries > READ_RETRIES_MAX {
            return Err(error.into());
        }
        match &error {
            ChunkError::Unreachable { .. } | ChunkError::NoQuorum { .. } => {
                if self.candidates.is_empty() {
                    // A small cluster has few nodes, and a slow client outlasts many a connection: ask them again.
                    self.reader.coordinators.env.sleep(READ_PAUSE).await;
                    self.candidates = candidates(&self.reader, &self.position)?;
                }
            }
            ChunkError::Unreadable { .. } if !self.reread => {
                self.reread = true;
                self.read_entry_again().await?;
                self.candidates = candidates(&self.reader, &self.position)?;
            }
            // Another node may see more of the cluster than the one that failed.
            ChunkError::Unreadable { .. } => {}
            ChunkError::WrongLength { .. } | ChunkError::Full | ChunkError::BodyFailed { .. } | ChunkError::BadMessage { .. } => {
                return Err(error.into());
            }
        }
        tracing::debug!(chunk = %self.position.wanted.entry.chunk, %error, "a chunk is read through another node");
        match open(&self.reader.coordinators, &mut self.candidates, &self.position, self.end) {
            Ok(opening) => {
                self.opening = opening;
                Ok(())
            }
            // The reason nobody is left is more telling than that nobody is.
            Err(ReadObjectError::NoNode { .. }) => Err(error.into()),
            Err(other) => Err(other),
        }
    }

    /// Another entry in the place of the old one is the same bytes: with a shard elsewhere, or coded anew under another id.
    async fn read_entry_again(&mut self) -> Result<(), ReadObjectError> {
        let Wanted { txn, index, range, .. } = *self.position.wanted;
        let records = self.reader.records(&self.place, vec![txn]).await?;
        let Some(Data::Chunks(entries)) = records.into_iter().next().flatten() else {
            return Err(ReadObjectError::Gone);
        };
        let known = &self.position.wanted.entry;
        let is_same = |entry: &ChunkEntry| (entry.bytes, entry.hash) == (known.bytes, known.hash);
        let entry = entries.into_iter().nth(index).filter(is_same).ok_or(ReadObjectError::Gone)?;
        self.position.wanted = Arc::new(Wanted { txn, index, entry, range });
        Ok(())
    }
}

fn candidates(reader: &ObjectReader, position: &Position) -> Result<VecDeque<NodeId>, ReadObjectError> {
    let map = reader.coordinators.map().ok_or(ReadObjectError::NoMap)?;
    Ok(reader.coordinators.to_read(&map, &position.wanted.entry).into())
}

/// The next piece of a chunk, never more than what is left; an early end is a broken node.
async fn next_piece(env: &Env, stream: &mut ByteStream<ChunkError>, left: u64) -> Result<Bytes, ChunkError> {
    loop {
        match env.timeout(READ_STALL, stream.next()).await {
            Ok(Some(Ok(piece))) if piece.is_empty() => {}
            Ok(Some(Ok(piece))) if piece.len() as u64 > left => {
                return Err(ChunkError::Unreachable { why: "more bytes came than were asked for".into() });
            }
            Ok(Some(verdict)) => return verdict,
            Ok(None) => return Err(ChunkError::Unreachable { why: "the stream ended early".into() }),
            Err(placement_types::Elapsed) => return Err(ChunkError::Unreachable { why: "the stream stalled".into() }),
        }
    }
}

/// Calls the next candidate that is known for what is between a position and the `end` of a run.
fn open(
    coordinators: &Coordinators,
    candidates: &mut VecDeque<NodeId>,
    position: &Position,
    end: u64,
) -> Result<Opening, ReadObjectError> {
    let Wanted { entry, range, .. } = &*position.wanted;
    let run = ByteRange::new(range.start() + position.done, range.start() + end).expect("less than the run was delivered");
    while let Some(candidate) = candidates.pop_front() {
        let Some(node) = coordinators.node(candidate) else { continue };
        let entry = entry.clone();
        let (sender, stream) = oneshot::channel();
        let task = coordinators.env.spawn("open a chunk", async move {
            let _ = sender.send(node.read_chunk(entry, run).await);
        });
        return Ok(Opening { stream, _task: task });
    }
    Err(ReadObjectError::NoNode { chunk: entry.chunk })
}
