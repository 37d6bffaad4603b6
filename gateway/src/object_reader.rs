//! Streams the bytes of a version: version -> byte range -> data records -> chunk entries -> chunk streams.
//!
//! Guarantees (K2): exactly the bytes asked for, of exactly this version, or the stream ends in an error. A chunk read whole
//! is checked against its BLAKE3, and its last piece is held back until the check passed, so that a client never gets a
//! complete body with a wrong byte; a part of a chunk relies on the unit checksums its coordinator verifies. The first piece
//! is waited for before there is a stream at all, so that most failures are a 5xx and not a broken connection.
//!
//! A coordinator that cannot be reached is replaced by another, where the bytes stopped. One that cannot read the chunk
//! makes the reader fetch the data record again, once: a repair or a move may have committed a new place since, or a
//! re-coding a new chunk in its stead (`chunk_run.rs`). Everything runs in one task behind a queue (`queue.rs`); a client that leaves ends the task.
//!
//! How much is read ahead depends on the client (`pace.rs`). For one that keeps up, chunks are opened whole, the next one
//! while one is sent. For one that has yet to show it, and for a slow one, stripe by stripe is asked for, so that no node and
//! no connection can hold more for it. For one that stands still the reading is *parked*: queue and chunk streams are
//! dropped, only the position is kept, and the chunk is opened there again when the client wants more. So thousands of
//! stalled clients cost no more than what their connections hold, and those get small copies ([`Pieces::Small`]), because a
//! slice would keep the whole stripe in memory. That the object may be overwritten meanwhile is nothing new: its chunks
//! outlive it for a grace period, and after that the stream ends in an error.

mod chunk_run;
mod pace;
mod queue;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use gateway_s3::{ObjectBody, S3Error, S3ErrorCode};
use placement_types::{ByteRange, ChunkId, ObjectKey, TaskHandle, TxnId};
use storage_node_proto::api::ChunkError;
use storage_node_proto::command::Shelf;
use storage_node_proto::object::{Data, DataRef, ObjectRecord};
use storage_node_proto::query::{Answer, Query};

use self::chunk_run::{ChunkRun, Halt, Position};
use self::pace::Gait;
use self::queue::{Giver, Taker, queue};
use crate::coordinators::Coordinators;
use crate::error::read_error;
use crate::limits::{DATA_RECORDS_PER_QUERY, READ_LEFTOVER_BYTES, SMALL_PIECE_BYTES};
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

/// How the bytes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// As copies of at most [`SMALL_PIECE_BYTES`]: for a client's connection, which keeps what it was given for as long as the
    /// client likes.
    Small,
    /// As they were read, up to a stripe: for who works them off at once.
    AsRead,
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
        pieces: Pieces,
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
        let (giver, taker) = queue(self.coordinators.env.clone());
        let segments = segments(&record.data, range);
        let mut reading = Reading { reader: self.clone(), place, segments, jobs: VecDeque::new(), current: None, ahead: None };
        let task = self.coordinators.env.spawn("read an object", async move {
            let result = reading.run(&giver).await;
            giver.end(result);
        });
        taker.first().await?;
        Ok(Some(body(Received { taker, _task: task, pieces, left: range.len() })))
    }
}

/// What a client is still to get. Dropping it stops the reading.
struct Received {
    taker: Taker<Origin>,
    _task: TaskHandle,
    pieces: Pieces,
    left: u64,
}

/// The queue as a stream that never ends cleanly short of what is left.
fn body(received: Received) -> ObjectBody {
    stream::unfold(Some(received), |state| async move { state?.next().await }).boxed()
}

impl Received {
    /// The next item, and what follows it: nothing after an error.
    async fn next(mut self) -> Option<(Result<Bytes, S3Error>, Option<Self>)> {
        if self.left == 0 {
            return None;
        }
        let taken = match self.pieces {
            Pieces::Small => {
                self.taker.take(SMALL_PIECE_BYTES).await.map(|taken| taken.map(|bytes| Bytes::copy_from_slice(&bytes)))
            }
            Pieces::AsRead => self.taker.take(usize::MAX).await,
        };
        match taken {
            Some(Ok(piece)) if piece.len() as u64 <= self.left => {
                self.left -= piece.len() as u64;
                Some((Ok(piece), Some(self)))
            }
            Some(Err(error)) => Some((Err(read_error(&error)), None)),
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
    Chunk(Position),
}

/// Where a piece can be read again: at a position, or, if it was inline, nowhere, and then it is kept.
type Origin = Option<Position>;

/// What is wanted of a record's chunks, in order.
fn jobs(segment: Segment, data: Data) -> Vec<Job> {
    match data {
        Data::Inline(content) => vec![Job::Inline(slice(&content, segment.range))],
        Data::Chunks(entries) => {
            let mut start = 0u64;
            let mut jobs = Vec::new();
            for (index, entry) in entries.into_iter().enumerate() {
                let end = start + u64::from(entry.bytes);
                let whole = ByteRange::new(start, end).expect("the end is after the start");
                if let Some(wanted) = whole.intersect(segment.range) {
                    let range = ByteRange::new(wanted.start() - start, wanted.end() - start).expect("it lies in the chunk");
                    jobs.push(Job::Chunk(Position::start(segment.txn, index, entry, range)));
                }
                start = end;
            }
            jobs
        }
    }
}

/// The reading of one range of one object.
struct Reading {
    reader: ObjectReader,
    place: DataPlace,
    segments: VecDeque<Segment>,
    jobs: VecDeque<Job>,
    /// What is being delivered.
    current: Option<ChunkRun>,
    /// What comes after it, when it is opened already.
    ahead: Option<ChunkRun>,
}

impl Reading {
    /// Reads to the end, parked whenever the client is too slow for what it made us hold.
    async fn run(&mut self, giver: &Giver<Origin>) -> Result<(), ReadObjectError> {
        loop {
            match self.read_on(giver).await {
                Ok(()) => return Ok(()),
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::TooSlow) => {
                    self.put_all_back(giver);
                    giver.wanted().await;
                }
            }
        }
    }

    async fn read_on(&mut self, giver: &Giver<Origin>) -> Result<(), Halt> {
        loop {
            if giver.gait() == Gait::Slow {
                giver.left(0).await?;
            }
            self.current = match self.ahead.take() {
                Some(run) => Some(run),
                None => match self.next_job().await? {
                    None => break,
                    Some(Job::Chunk(position)) => Some(self.open(position, giver.gait())?),
                    Some(Job::Inline(content)) => {
                        // Small enough to be there before there is room.
                        giver.add(content, None);
                        giver.room_for(0).await?;
                        continue;
                    }
                },
            };
            if giver.gait() == Gait::Brisk && self.current.as_ref().is_some_and(ChunkRun::is_last) {
                self.ahead = self.open_ahead().await?;
            }
            if let Some(run) = &mut self.current {
                run.deliver(giver).await?;
            }
            if let Some(rest) = self.current.take().and_then(ChunkRun::rest) {
                self.jobs.push_front(Job::Chunk(rest));
            }
        }
        giver.left(READ_LEFTOVER_BYTES).await?;
        giver.copy_what_is_left();
        Ok(())
    }

    async fn open_ahead(&mut self) -> Result<Option<ChunkRun>, ReadObjectError> {
        match self.next_job().await? {
            Some(Job::Chunk(position)) => Ok(Some(self.open(position, Gait::Brisk)?)),
            Some(inline @ Job::Inline(_)) => {
                self.jobs.push_front(inline);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn open(&self, position: Position, gait: Gait) -> Result<ChunkRun, ReadObjectError> {
        ChunkRun::open(self.reader.clone(), self.place.clone(), position, gait)
    }

    /// Makes jobs again of everything the client has not taken, and drops whatever is held for them.
    fn put_all_back(&mut self, giver: &Giver<Origin>) {
        let ahead = self.ahead.take();
        let current = self.current.take();
        for rest in [ahead, current].into_iter().flatten().filter_map(ChunkRun::rest) {
            self.put_back(rest);
        }
        for queued in giver.take_back().into_iter().rev() {
            let (taken, left) = queued.piece.split_at(queued.taken);
            match queued.origin {
                Some(position) => self.put_back(position.after(taken)),
                None => self.jobs.push_front(Job::Inline(Bytes::copy_from_slice(left))),
            }
        }
    }

    /// Makes a job of the rest of a chunk; what was to be read of it from further on is part of that.
    fn put_back(&mut self, position: Position) {
        if let Some(Job::Chunk(further)) = self.jobs.front()
            && further.is_in_chunk_of(&position)
        {
            self.jobs.pop_front();
        }
        self.jobs.push_front(Job::Chunk(position));
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
            | Answer::Members { .. }
            | Answer::Survey { .. }
            | Answer::Holdings { .. }
            | Answer::NoSuchVersion
            | Answer::NoSuchUpload => Err(ReadObjectError::UnfitAnswer { answer: "something else" }),
        }
    }
}
