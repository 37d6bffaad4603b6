//! Streams the bytes of a version: version -> byte range -> data records -> chunk entries -> chunk streams.
//!
//! Guarantees (K2): exactly the bytes asked for, of exactly this version, or the stream ends in an error. A chunk read whole
//! is checked against its BLAKE3, and its last piece is held back until the check passed, so that a client never gets a
//! complete body with a wrong byte; a part of a chunk relies on the unit checksums its coordinator verifies. The first piece
//! is waited for before there is a stream at all, so that most failures are a 5xx and not a broken connection.
//!
//! A coordinator that cannot be reached is replaced by another, where the bytes stopped. One that cannot read the chunk
//! makes the reader fetch the data record again, once: a repair or a move may have committed a new place since. While a chunk
//! is sent, the next one is being opened. Everything runs in one task behind a channel of [`READ_PIECES_MAX`] pieces: a slow
//! client holds no more than that, and one that leaves ends the task.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use gateway_s3::{ObjectBody, S3Error, S3ErrorCode};
use placement_types::{ByteRange, ChunkId, Env, NodeId, ObjectKey, TaskHandle, TxnId};
use std::sync::Arc;
use storage_node_proto::api::{ByteStream, ChunkError};
use storage_node_proto::command::Shelf;
use storage_node_proto::object::{ChunkEntry, Data, DataRef, ObjectRecord};
use storage_node_proto::query::{Answer, Query};
use tokio::sync::{mpsc, oneshot};

use crate::coordinators::Coordinators;
use crate::error::read_error;
use crate::limits::{DATA_RECORDS_PER_QUERY, READ_PAUSE, READ_PIECES_MAX, READ_RETRIES_MAX, READ_STALL};
use crate::meta_router::{MetaRouter, RouteError};

#[derive(Debug, thiserror::Error)]
pub enum ReadObjectError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The version was deleted or replaced, and its data collected, while it was being read.
    #[error("the object was deleted while it was being read")]
    Gone,
    #[error("chunk {chunk} was delivered with the wrong bytes")]
    WrongHash { chunk: ChunkId },
    #[error("no cluster map is known")]
    NoMap,
    #[error("no node could be asked for chunk {chunk}")]
    NoNode { chunk: ChunkId },
    #[error("the data query was answered with {answer}")]
    UnfitAnswer { answer: &'static str },
}

/// Where a version's data is filed.
#[derive(Clone)]
pub struct DataPlace {
    pub shelf: Shelf,
    pub key: ObjectKey,
}

/// Reads objects. Cheap to clone.
#[derive(Clone)]
pub struct ObjectReader {
    coordinators: Coordinators,
    router: Arc<MetaRouter>,
}

impl ObjectReader {
    pub fn new(coordinators: Coordinators, router: Arc<MetaRouter>) -> Self {
        Self { coordinators, router }
    }

    /// Opens `range` of an object; `None` when that is no byte at all. Dropping the stream stops the reading.
    pub async fn open(
        &self,
        place: DataPlace,
        record: &ObjectRecord,
        inline: Option<Bytes>,
        range: ByteRange,
    ) -> Result<Option<ObjectBody>, ReadObjectError> {
        if range.is_empty() {
            return Ok(None);
        }
        if let Some(content) = inline
            && content.len() as u64 == record.bytes
        {
            let piece = slice(&content, range);
            return Ok(Some(stream::iter([Ok(piece)]).boxed()));
        }
        let (sender, mut receiver) = mpsc::channel(READ_PIECES_MAX);
        let mut run = ReadRun { reader: self.clone(), place, segments: segments(&record.data, range), jobs: VecDeque::new() };
        let task = self.coordinators.env.spawn("read an object", async move {
            if let Err(error) = run.run(&sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        let first = match receiver.recv().await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Err(error),
            None => return Err(ReadObjectError::Gone),
        };
        Ok(Some(body(receiver, task, first, range.len())))
    }
}

/// The channel as a stream that never ends cleanly short of `bytes`.
fn body(receiver: mpsc::Receiver<Result<Bytes, ReadObjectError>>, task: TaskHandle, first: Bytes, bytes: u64) -> ObjectBody {
    let received = Received { receiver, _task: task, first: Some(first), left: bytes };
    stream::unfold(Some(received), |state| async move { state?.next().await }).boxed()
}

/// What a client is still to get. Dropping it stops the reading.
struct Received {
    receiver: mpsc::Receiver<Result<Bytes, ReadObjectError>>,
    _task: TaskHandle,
    first: Option<Bytes>,
    left: u64,
}

impl Received {
    /// The next item, and what follows it: nothing after an error.
    async fn next(mut self) -> Option<(Result<Bytes, S3Error>, Option<Self>)> {
        let item = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None if self.left == 0 => None,
            None => self.receiver.recv().await,
        };
        match item {
            Some(Ok(piece)) if piece.len() as u64 <= self.left => {
                self.left -= piece.len() as u64;
                Some((Ok(piece), Some(self)))
            }
            Some(Err(error)) => Some((Err(read_error(&error)), None)),
            None if self.left == 0 => None,
            Some(Ok(_)) | None => {
                tracing::error!(left = self.left, "an object's data has another length than its record");
                Some((Err(S3Error::new(S3ErrorCode::InternalError)), None))
            }
        }
    }
}

/// What of one data record is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    txn: TxnId,
    /// Within the record.
    range: ByteRange,
}

/// The records that hold `range` of an object, in order.
fn segments(data: &[DataRef], range: ByteRange) -> VecDeque<Segment> {
    let mut start = 0u64;
    let mut segments = VecDeque::new();
    for record in data {
        let end = start.saturating_add(record.bytes);
        let whole = ByteRange::new(start, end).expect("the end is after the start");
        if let Some(wanted) = whole.intersect(range) {
            let range = ByteRange::new(wanted.start() - start, wanted.end() - start).expect("it lies in the record");
            segments.push_back(Segment { txn: record.txn, range });
        }
        start = end;
    }
    segments
}

fn slice(content: &Bytes, range: ByteRange) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    content.slice(at(range.start())..at(range.end()))
}

/// One thing to deliver.
enum Job {
    Inline(Bytes),
    Chunk { txn: TxnId, entry: ChunkEntry, range: ByteRange },
}

/// What is wanted of a record's chunks, in order.
fn jobs(segment: Segment, data: Data) -> Vec<Job> {
    match data {
        Data::Inline(content) => vec![Job::Inline(slice(&content, segment.range))],
        Data::Chunks(entries) => {
            let mut start = 0u64;
            let mut jobs = Vec::new();
            for entry in entries {
                let end = start + u64::from(entry.bytes);
                let whole = ByteRange::new(start, end).expect("the end is after the start");
                if let Some(wanted) = whole.intersect(segment.range) {
                    let range = ByteRange::new(wanted.start() - start, wanted.end() - start).expect("it lies in the chunk");
                    jobs.push(Job::Chunk { txn: segment.txn, entry, range });
                }
                start = end;
            }
            jobs
        }
    }
}

type Delivery = mpsc::Sender<Result<Bytes, ReadObjectError>>;

/// The client left: there is nobody to read for.
struct ClientLeft;

/// The reading of one range of one object.
struct ReadRun {
    reader: ObjectReader,
    place: DataPlace,
    segments: VecDeque<Segment>,
    jobs: VecDeque<Job>,
}

impl ReadRun {
    async fn run(&mut self, delivery: &Delivery) -> Result<(), ReadObjectError> {
        let mut ahead = None;
        loop {
            let current = match ahead.take() {
                Some(reading) => reading,
                None => match self.next_job().await? {
                    Some(job) => self.start(job)?,
                    None => return Ok(()),
                },
            };
            if let Some(job) = self.next_job().await? {
                ahead = Some(self.start(job)?);
            }
            let delivered = match current {
                Reading::Inline(piece) => delivery.send(Ok(piece)).await.map_err(|_| ClientLeft),
                Reading::Chunk(chunk) => chunk.deliver(delivery).await?,
            };
            if let Err(ClientLeft) = delivered {
                return Ok(());
            }
        }
    }

    /// The next job, from a further batch of data records when needed.
    async fn next_job(&mut self) -> Result<Option<Job>, ReadObjectError> {
        while self.jobs.is_empty() {
            let batch: Vec<Segment> = self.segments.drain(..self.segments.len().min(DATA_RECORDS_PER_QUERY)).collect();
            if batch.is_empty() {
                return Ok(None);
            }
            let records = self.reader.records(&self.place, batch.iter().map(|segment| segment.txn).collect()).await?;
            for (segment, record) in batch.into_iter().zip(records) {
                self.jobs.extend(jobs(segment, record.ok_or(ReadObjectError::Gone)?));
            }
        }
        Ok(self.jobs.pop_front())
    }

    fn start(&self, job: Job) -> Result<Reading, ReadObjectError> {
        Ok(match job {
            Job::Inline(piece) => Reading::Inline(piece),
            Job::Chunk { txn, entry, range } => {
                Reading::Chunk(Box::new(ChunkReading::start(self.reader.clone(), self.place.clone(), txn, entry, range)?))
            }
        })
    }
}

impl ObjectReader {
    async fn records(&self, place: &DataPlace, txns: Vec<TxnId>) -> Result<Vec<Option<Data>>, ReadObjectError> {
        let asked = txns.len();
        let query = Query::Data { shelf: place.shelf, key: place.key.clone(), txns };
        match self.router.query(place.shelf, query).await? {
            Answer::Data { records } if records.len() == asked => Ok(records),
            Answer::NoSuchKey { .. } | Answer::BucketGone => Err(ReadObjectError::Gone),
            Answer::Malformed { why } => {
                tracing::error!(why, "a data query was refused");
                Err(ReadObjectError::UnfitAnswer { answer: "malformed" })
            }
            Answer::Data { .. } => Err(ReadObjectError::UnfitAnswer { answer: "another number of records" }),
            Answer::Version { .. }
            | Answer::Objects { .. }
            | Answer::Versions { .. }
            | Answer::Uploads { .. }
            | Answer::Upload { .. }
            | Answer::CompletedUpload { .. }
            | Answer::Parts { .. }
            | Answer::Garbage { .. }
            | Answer::Degraded { .. }
            | Answer::Referenced { .. }
            | Answer::Survey { .. }
            | Answer::Holdings { .. }
            | Answer::NoSuchVersion
            | Answer::NoSuchUpload => Err(ReadObjectError::UnfitAnswer { answer: "something else" }),
        }
    }
}

enum Reading {
    Inline(Bytes),
    Chunk(Box<ChunkReading>),
}

/// A range of one chunk, being read.
struct ChunkReading {
    reader: ObjectReader,
    place: DataPlace,
    txn: TxnId,
    entry: ChunkEntry,
    range: ByteRange,
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

impl ChunkReading {
    fn start(
        reader: ObjectReader,
        place: DataPlace,
        txn: TxnId,
        entry: ChunkEntry,
        range: ByteRange,
    ) -> Result<Self, ReadObjectError> {
        let map = reader.coordinators.map().ok_or(ReadObjectError::NoMap)?;
        let mut candidates: VecDeque<NodeId> = reader.coordinators.to_read(&map, &entry).into();
        let opening = open(&reader.coordinators, &mut candidates, &entry, range)?;
        Ok(Self { reader, place, txn, entry, range, candidates, retries: 0, reread: false, opening })
    }

    /// Sends the range on, piece by piece, the last one only after the chunk's hash was right.
    async fn deliver(mut self: Box<Self>, delivery: &Delivery) -> Result<Result<(), ClientLeft>, ReadObjectError> {
        let env = self.reader.coordinators.env.clone();
        let whole = self.range.len() == u64::from(self.entry.bytes);
        let mut hasher = whole.then(blake3::Hasher::new);
        let mut held: Option<Bytes> = None;
        let mut done = 0u64;
        let mut stream = self.opened(&env).await;
        while done < self.range.len() {
            let piece = match &mut stream {
                Err(error) => Err(error.clone()),
                Ok(stream) => next_piece(&env, stream, self.range.len() - done).await,
            };
            match piece {
                Ok(piece) => {
                    if let Some(hasher) = &mut hasher {
                        hasher.update(&piece);
                    }
                    done += piece.len() as u64;
                    if let Some(before) = held.replace(piece)
                        && delivery.send(Ok(before)).await.is_err()
                    {
                        return Ok(Err(ClientLeft));
                    }
                }
                Err(error) => {
                    drop(stream);
                    self.reopen(error, done).await?;
                    stream = self.opened(&env).await;
                }
            }
        }
        if hasher.is_some_and(|hasher| hasher.finalize() != blake3::Hash::from_bytes(self.entry.hash)) {
            return Err(ReadObjectError::WrongHash { chunk: self.entry.chunk });
        }
        match held {
            Some(last) => Ok(delivery.send(Ok(last)).await.map_err(|_| ClientLeft)),
            None => Ok(Ok(())),
        }
    }

    async fn opened(&mut self, env: &Env) -> Result<ByteStream<ChunkError>, ChunkError> {
        match env.timeout(READ_STALL, &mut self.opening.stream).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ChunkError::Unreachable { why: "the process is shutting down".into() }),
            Err(placement_types::Elapsed) => Err(ChunkError::Unreachable { why: "no answer in time".into() }),
        }
    }

    fn choose_again(&mut self) -> Result<(), ReadObjectError> {
        let map = self.reader.coordinators.map().ok_or(ReadObjectError::NoMap)?;
        self.candidates = self.reader.coordinators.to_read(&map, &self.entry).into();
        Ok(())
    }

    /// Decides what to do about a failure after `done` bytes, and opens the rest of the range accordingly.
    async fn reopen(&mut self, error: ChunkError, done: u64) -> Result<(), ReadObjectError> {
        self.retries += 1;
        if self.retries > READ_RETRIES_MAX {
            return Err(error.into());
        }
        match &error {
            ChunkError::Unreachable { .. } | ChunkError::NoQuorum { .. } => {
                if self.candidates.is_empty() {
                    // A small cluster has few nodes, and a slow client outlasts many a connection: ask them again.
                    self.reader.coordinators.env.sleep(READ_PAUSE).await;
                    self.choose_again()?;
                }
            }
            ChunkError::Unreadable { .. } if !self.reread => {
                self.reread = true;
                let records = self.reader.records(&self.place, vec![self.txn]).await?;
                let Some(Data::Chunks(entries)) = records.into_iter().next().flatten() else {
                    return Err(ReadObjectError::Gone);
                };
                let chunk = self.entry.chunk;
                self.entry = entries.into_iter().find(|entry| entry.chunk == chunk).ok_or(ReadObjectError::Gone)?;
                self.choose_again()?;
            }
            // Another node may see more of the cluster than the one that failed.
            ChunkError::Unreadable { .. } => {}
            ChunkError::WrongLength { .. } | ChunkError::Full | ChunkError::BodyFailed { .. } | ChunkError::BadMessage { .. } => {
                return Err(error.into());
            }
        }
        tracing::debug!(chunk = %self.entry.chunk, %error, "a chunk is read through another node");
        let rest = ByteRange::new(self.range.start() + done, self.range.end()).expect("less than the range was delivered");
        match open(&self.reader.coordinators, &mut self.candidates, &self.entry, rest) {
            Ok(opening) => {
                self.opening = opening;
                Ok(())
            }
            // The reason nobody is left is more telling than that nobody is.
            Err(ReadObjectError::NoNode { .. }) => Err(error.into()),
            Err(other) => Err(other),
        }
    }
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

/// Calls the next candidate that is known.
fn open(
    coordinators: &Coordinators,
    candidates: &mut VecDeque<NodeId>,
    entry: &ChunkEntry,
    range: ByteRange,
) -> Result<Opening, ReadObjectError> {
    while let Some(candidate) = candidates.pop_front() {
        let Some(node) = coordinators.node(candidate) else { continue };
        let entry = entry.clone();
        let (sender, stream) = oneshot::channel();
        let task = coordinators.env.spawn("open a chunk", async move {
            let _ = sender.send(node.read_chunk(entry, range).await);
        });
        return Ok(Opening { stream, _task: task });
    }
    Err(ReadObjectError::NoNode { chunk: entry.chunk })
}
