//! Writes one shard, unit by unit.
//!
//! Memory: one unit is held back (it becomes the record that carries the seal, which saves a small shard a second record) and
//! the queue holds at most `QUEUE_BYTES_MAX` per disk; beyond that [`ShardWriter::append`] waits.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_types::{Profile, ShardId, Slot, Timestamp, TxnId, codec_struct};
use tokio::sync::oneshot;

use crate::disk::Handle;
use crate::error::WriteError;
use crate::format::{Hash, SealedUnit, hash, record_blocks};
use crate::limits::{UNIT_BYTES_MAX, UNITS_MAX};
use crate::log::{Append, UnitData};
use crate::position::{Extent, Position};

/// Who wrote a shard, kept with it so that a scrub can ask its metadata group whether anything refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub txn: TxnId,
    pub slot: Slot,
}
codec_struct!(Owner { txn, slot });

/// Why a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    New,
    /// Compaction's copy of the shard whose seal is at `from`.
    Move {
        from: Position,
    },
}

/// A shard on its way to the disk, shared by its writer and the log.
pub(crate) struct Stream {
    pub shard: ShardId,
    pub owner: Owner,
    pub profile: Profile,
    pub written_at: Timestamp,
    pub purpose: Purpose,
    state: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    /// The units written so far.
    units: Vec<SealedUnit>,
    ended: Option<StreamEnd>,
}

enum StreamEnd {
    Sealed,
    Abandoned,
    Failed(WriteError),
}

impl Stream {
    pub fn new(shard: ShardId, owner: Owner, profile: Profile, written_at: Timestamp, purpose: Purpose) -> Self {
        Self { shard, owner, profile, written_at, purpose, state: Mutex::default() }
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// `false` when the stream has ended: the unit is the caller's to give up.
    pub fn push(&self, unit: SealedUnit) -> bool {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return false;
        }
        state.units.push(unit);
        true
    }

    /// Ends the stream with an error its writer will see; returns the units to give up.
    pub fn fail(&self, error: WriteError) -> Vec<SealedUnit> {
        self.end(StreamEnd::Failed(error))
    }

    fn abandon(&self) -> Vec<SealedUnit> {
        self.end(StreamEnd::Abandoned)
    }

    fn end(&self, end: StreamEnd) -> Vec<SealedUnit> {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return Vec::new();
        }
        state.ended = Some(end);
        std::mem::take(&mut state.units)
    }

    /// Ends the stream for its seal.
    pub fn take_units(&self) -> Result<Vec<SealedUnit>, WriteError> {
        if let Some(StreamEnd::Failed(error)) = &self.state.lock().ended {
            return Err(error.clone());
        }
        Ok(self.end(StreamEnd::Sealed))
    }

    fn failure(&self) -> Option<WriteError> {
        match &self.state.lock().ended {
            Some(StreamEnd::Failed(error)) => Some(error.clone()),
            Some(StreamEnd::Sealed | StreamEnd::Abandoned) | None => None,
        }
    }
}

/// The blocks of unit records.
pub(crate) fn extents_of(units: &[SealedUnit]) -> Vec<Extent> {
    units.iter().map(|unit| Extent { at: unit.at, blocks: record_blocks(unit.bytes, 0) }).collect()
}

/// Writes one shard. Nothing is readable before [`ShardWriter::finish`]; dropping the writer before gives up what it wrote.
pub struct ShardWriter {
    disk: Arc<Handle>,
    stream: Arc<Stream>,
    /// The unit that becomes the seal's unless another follows.
    held: Option<(Bytes, Hash)>,
    /// Units sent to the log.
    sent: u32,
    sealing: bool,
}

impl ShardWriter {
    pub(crate) fn new(disk: Arc<Handle>, stream: Stream) -> Self {
        Self { disk, stream: Arc::new(stream), held: None, sent: 0, sealing: false }
    }

    pub fn shard(&self) -> ShardId {
        self.stream.shard
    }

    /// Adds the next unit, at most [`UNIT_BYTES_MAX`] bytes; waits while the disk's queue is full. After
    /// an error the shard will not be there. A cancelled append did not happen.
    pub async fn append(&mut self, data: Bytes) -> Result<(), WriteError> {
        let shard = self.stream.shard;
        if data.len() > UNIT_BYTES_MAX {
            return Err(WriteError::UnitTooLarge { shard, bytes: data.len() });
        }
        if self.sent as usize + usize::from(self.held.is_some()) >= UNITS_MAX {
            return Err(WriteError::TooManyUnits { shard });
        }
        if let Some(error) = self.stream.failure() {
            return Err(error);
        }
        // About 0.2 ms for the largest unit: cheaper here than a trip to another thread.
        let hash = hash(&data);
        // All waiting comes before any change, so that a cancelled append was none.
        if let Some((previous, _)) = &self.held {
            let room = self.disk.room_for(previous.len()).await?;
            let slot = self.disk.reserve().await?;
            let (data, hash) = self.held.take().expect("looked at above");
            let unit = UnitData { index: self.sent, data, hash, _room: room };
            slot.send(Append::Unit { stream: self.stream.clone(), unit });
            self.sent += 1;
        }
        self.held = Some((data, hash));
        Ok(())
    }

    /// Makes the shard durable and readable: `Ok` comes after the fsync of every unit and the seal. Finishing a shard that is
    /// there already with the same content is `Ok` too, so that a lost answer can be retried; to write a *damaged* shard
    /// again, delete it first. When cancelled, or after `Dead` and `Closed`, the shard may or may not be there.
    pub async fn finish(mut self) -> Result<(), WriteError> {
        if let Some(error) = self.stream.failure() {
            return Err(error);
        }
        let last = match self.held.take() {
            Some((data, hash)) => {
                let room = self.disk.room_for(data.len()).await?;
                Some(UnitData { index: self.sent, data, hash, _room: room })
            }
            None => None,
        };
        let slot = self.disk.reserve().await?;
        let (reply, sealed) = oneshot::channel();
        // From here the log owns the stream, also if this future is dropped.
        self.sealing = true;
        slot.send(Append::Seal { stream: self.stream.clone(), last, reply });
        self.disk.answer(sealed).await
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if !self.sealing {
            self.disk.core.abandon(extents_of(&self.stream.abandon()));
        }
    }
}
