//! The append stage: gives each record its place and writes it.
//!
//! It runs the queue strictly in order and is the only one to decide what a request means, so that two writers of one shard, a
//! delete and a compaction can never disagree. What it writes is durable only after the commit stage's fsync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use placement_types::codec::Encode;
use placement_types::{File, ShardId};

use crate::commit::{Commit, Written};
use crate::error::{WriteError, means_full};
use crate::format::{
    DeleteTable, Entry, HEADER_BYTES, Header, RecordKind, SealTable, SealedUnit, Tombstone, hash, record_blocks, root_hash,
    seal_table_bytes,
};
use crate::identity;
use crate::limits::{DELETE_HEADROOM_BYTES, SMALL_SEGMENT_BYTES, TOMBSTONES_MAX};
use crate::log::{Append, Core, Reply, UnitData};
use crate::position::{BLOCK_BYTES, Position, blocks_of};
use crate::writer::{Purpose, Stream, extents_of};

/// Records up to this size are put together in memory and written by one call; beyond it copying costs more than a call.
const ONE_CALL_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Appender {
    core: Arc<Core>,
    active: Option<Active>,
    next_number: u32,
    scratch: Vec<u8>,
}

/// The segment records go to.
pub(crate) struct Active {
    pub number: u32,
    pub file: Arc<dyn File>,
    /// The next free block.
    pub end: u32,
    /// The first block that is not ours.
    pub limit: u32,
    /// Begun with space that shards may not use.
    pub from_reserve: bool,
}

/// Who needs the space: shards stop at the reserve, deletes and moves may use it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Shard,
    Maintenance,
}

/// A seal that was written.
struct Sealed {
    entry: Entry,
    /// Where a moved shard was before.
    replaced: Option<Arc<Entry>>,
}

impl Appender {
    pub fn new(core: Arc<Core>, active: Option<Active>, next_number: u32) -> Self {
        Self { core, active, next_number, scratch: Vec::new() }
    }

    /// Serves a batch in order. Blocks.
    pub fn write_batch(&mut self, batch: Vec<Append>) -> Written {
        let mut out = Written { dirty: BTreeMap::new(), commits: Vec::new(), end: Position::START };
        for message in batch {
            match message {
                Append::Unit { stream, unit } => self.append_unit(&stream, unit, &mut out),
                Append::Seal { stream, last, reply } => self.append_seal(&stream, last, reply, &mut out),
                Append::Delete { shards, reply } => self.append_delete(shards, reply, &mut out),
                Append::Keep { tombstones, reply } => self.append_tombstones(tombstones, reply, &mut out),
                Append::Adopt { shard, entry, reply } => self.adopt(shard, entry, reply, &mut out),
                Append::Retire { segment, reply } => {
                    self.active.take_if(|active| active.number == segment);
                    out.commits.push(Commit::Wait { reply });
                }
                Append::Barrier { reply } => out.commits.push(Commit::Barrier { reply }),
                Append::Close => {}
            }
        }
        out.end = match &self.active {
            Some(active) => Position { segment: active.number, block: active.end },
            None => Position { segment: self.next_number, block: 0 },
        };
        out
    }

    fn append_unit(&mut self, stream: &Stream, unit: UnitData, out: &mut Written) {
        if stream.has_ended() {
            return;
        }
        match self.write_unit(stream, &unit, out) {
            Ok(sealed) => {
                if !stream.push(sealed) {
                    // The writer was dropped in the meantime.
                    self.core.abandon(extents_of(&[sealed]));
                }
            }
            Err(error) => self.core.abandon(extents_of(&stream.fail(error))),
        }
    }

    fn write_unit(&mut self, stream: &Stream, unit: &UnitData, out: &mut Written) -> Result<SealedUnit, WriteError> {
        let bytes = u32::try_from(unit.data.len()).expect("at most UNIT_BYTES_MAX");
        let at = self.place(record_blocks(bytes, 0), stream.need())?;
        let header = Header {
            unit: unit.index,
            data_bytes: bytes,
            data_hash: unit.hash,
            ..self.shard_header(stream, RecordKind::Unit, at)
        };
        self.write_record(&header, &unit.data, &[], out)?;
        self.core.segments.add_open(header.extent());
        Ok(SealedUnit { at, bytes, hash: unit.hash })
    }

    fn append_seal(&mut self, stream: &Stream, last: Option<UnitData>, reply: Reply<()>, out: &mut Written) {
        let units = match stream.take_units() {
            Ok(units) => units,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let written = extents_of(&units);
        match self.write_seal(stream, units, last, out) {
            Ok(Some(Sealed { entry, replaced })) => {
                let entry = Arc::new(entry);
                self.core.pending.insert(stream.shard, entry.seal, Some(entry.clone()));
                out.commits.push(Commit::Put { shard: stream.shard, entry, replaced, reply });
            }
            Ok(None) => {
                self.core.abandon(written);
                // What made this write needless may itself still wait for its fsync.
                out.commits.push(Commit::Wait { reply });
            }
            Err(error) => {
                self.core.abandon(written);
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Returns the new entry and the one it replaces, or `None` when there is nothing to seal: the same shard is there already,
    /// or the shard to move changed since.
    fn write_seal(
        &mut self,
        stream: &Stream,
        mut units: Vec<SealedUnit>,
        last: Option<UnitData>,
        out: &mut Written,
    ) -> Result<Option<Sealed>, WriteError> {
        let last_bytes = last.as_ref().map_or(0, |unit| u32::try_from(unit.data.len()).expect("at most UNIT_BYTES_MAX"));
        let last_hash = last.as_ref().map_or_else(|| hash(&[]), |unit| unit.hash);
        if last.is_some() {
            units.push(SealedUnit { at: Position::START, bytes: last_bytes, hash: last_hash });
        }
        let existing = self.core.latest(stream.shard)?;
        let replaced = match (stream.purpose, existing) {
            (Purpose::New, None) => None,
            (Purpose::New, Some(existing)) if existing.root == root_hash(&units) => {
                if !self.core.is_damaged(stream.shard, &existing) {
                    return Ok(None);
                }
                // The same content under the same owner, so to everybody else it is the same shard (I3).
                if existing.owner != stream.owner {
                    return Err(WriteError::AlreadyExists { disk: self.core.identity.disk, shard: stream.shard });
                }
                Some(existing)
            }
            (Purpose::New, Some(_)) => {
                return Err(WriteError::AlreadyExists { disk: self.core.identity.disk, shard: stream.shard });
            }
            // Appending it after a tombstone, or over a newer shard of that id, would undo those in a replay.
            (Purpose::Move { from }, Some(existing)) if existing.seal == from => Some(existing),
            (Purpose::Move { .. }, _) => return Ok(None),
        };
        let table_bytes = seal_table_bytes(units.len());
        let at = self.place(record_blocks(last_bytes, table_bytes), stream.need())?;
        if let (Some(unit), true) = (units.last_mut(), last.is_some()) {
            unit.at = at;
        }
        let table = SealTable::new(units);
        let encoded = table.to_encoded();
        assert_eq!(encoded.len(), table_bytes as usize, "the table has the size it was given room for");
        let header = Header {
            unit: last.as_ref().map_or(0, |unit| unit.index),
            data_bytes: last_bytes,
            table_bytes,
            data_hash: last_hash,
            table_hash: hash(&encoded),
            ..self.shard_header(stream, RecordKind::Seal, at)
        };
        self.write_record(&header, last.as_ref().map_or(&[], |unit| &unit.data), &encoded, out)?;
        self.core.segments.add_open(header.extent());
        Ok(Some(Sealed { entry: Entry::of_seal(&header, &table), replaced }))
    }

    /// Nothing is written: the seal is there, durably, and the caller checked all of it.
    fn adopt(&mut self, shard: ShardId, entry: Entry, reply: Reply<()>, out: &mut Written) {
        let extents = entry.extents();
        let is_there = extents.iter().all(|extent| self.core.segments.exists(extent.at.segment));
        match self.core.latest(shard) {
            Ok(None) if is_there => {
                let entry = Arc::new(entry);
                extents.into_iter().for_each(|extent| self.core.segments.add_open(extent));
                self.core.pending.insert(shard, entry.seal, Some(entry.clone()));
                out.commits.push(Commit::Put { shard, entry, replaced: None, reply });
            }
            Ok(_) => out.commits.push(Commit::Wait { reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn append_delete(&mut self, shards: Vec<ShardId>, reply: Reply<()>, out: &mut Written) {
        let removed = shards.into_iter().collect::<BTreeSet<_>>().into_iter().filter_map(|shard| {
            let entry = self.core.latest(shard).transpose()?;
            Some(entry.map(|entry| (shard, entry)))
        });
        let removed: Vec<(ShardId, Arc<Entry>)> = match removed.collect() {
            Ok(removed) => removed,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        for part in removed.chunks(TOMBSTONES_MAX) {
            let tombstones = part.iter().map(|(shard, entry)| Tombstone { shard: *shard, newest: entry.seal }).collect();
            match self.write_tombstones(tombstones, out) {
                Ok(at) => {
                    part.iter().for_each(|(shard, _)| self.core.pending.insert(*shard, at, None));
                    out.commits.push(Commit::Delete { at, removed: part.to_vec(), reply: None });
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                    return;
                }
            }
        }
        // Also when nothing was there: an earlier delete of the same shard may still wait for its fsync.
        out.commits.push(Commit::Wait { reply });
    }

    fn append_tombstones(&mut self, tombstones: Vec<Tombstone>, reply: Reply<()>, out: &mut Written) {
        for part in tombstones.chunks(TOMBSTONES_MAX) {
            if let Err(error) = self.write_tombstones(part.to_vec(), out) {
                let _ = reply.send(Err(error));
                return;
            }
        }
        out.commits.push(Commit::Wait { reply });
    }

    fn write_tombstones(&mut self, tombstones: Vec<Tombstone>, out: &mut Written) -> Result<Position, WriteError> {
        let table = DeleteTable { tombstones }.to_encoded();
        let blocks = record_blocks(0, u32::try_from(table.len()).expect("at most TABLE_BYTES_MAX"));
        let at = self.place(blocks, Need::Maintenance)?;
        let header = Header::delete(at, self.core.durable.upto(), self.core.env.now(), &table);
        self.write_record(&header, &[], &table, out)?;
        self.core.segments.add_dead(header.extent());
        Ok(at)
    }

    fn shard_header(&self, stream: &Stream, kind: RecordKind, at: Position) -> Header {
        Header {
            kind,
            shard: stream.shard,
            unit: 0,
            owner: stream.owner,
            profile: stream.profile,
            written_at: stream.written_at,
            at,
            durable: self.core.durable.upto(),
            data_bytes: 0,
            table_bytes: 0,
            data_hash: [0; 32],
            table_hash: hash(&[]),
        }
    }

    fn write_record(&mut self, header: &Header, data: &[u8], table: &[u8], out: &mut Written) -> Result<(), WriteError> {
        let active = self.active.as_mut().expect("a placed record has a segment");
        let head = header.to_bytes(&self.core.key);
        let written = if HEADER_BYTES + data.len() + table.len() <= ONE_CALL_BYTES_MAX {
            self.scratch.clear();
            self.scratch.extend_from_slice(&head);
            self.scratch.extend_from_slice(data);
            self.scratch.extend_from_slice(table);
            active.file.write_at(&self.scratch, header.at.offset())
        } else {
            write_parts(&active.file, header, &head, data, table)
        };
        // Before the check: after an error some of it may be written, and must not escape the next fsync.
        out.dirty.entry(active.number).or_insert_with(|| active.file.clone());
        match written {
            Ok(()) => {
                active.end += header.extent().blocks;
                Ok(())
            }
            // The place is not taken: the next record overwrites what is there.
            Err(error) if means_full(&error) => Err(self.core.health.set_full()),
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                let path = self.core.segments.path(active.number);
                Err(self.core.health.freeze(format_args!("{} cannot be written: {error}", path.display())))
            }
            Err(error) => {
                let path = self.core.segments.path(active.number);
                Err(self.core.health.kill(format_args!("write to {} failed: {error}", path.display())))
            }
        }
    }

    /// Room for a record of `blocks`; begins a new segment when the active one is used up.
    fn place(&mut self, blocks: u32, need: Need) -> Result<Position, WriteError> {
        self.core.health.alive()?;
        if let Some(active) = &mut self.active {
            let headroom = if need == Need::Shard { blocks_of(DELETE_HEADROOM_BYTES) } else { 0 };
            if active.end + blocks <= active.limit.saturating_sub(headroom) {
                if need == Need::Shard && active.from_reserve {
                    if available_bytes(&self.core)? < self.core.options.reserve_bytes {
                        return Err(self.core.health.set_full());
                    }
                    active.from_reserve = false;
                    self.core.health.set_room();
                }
                return Ok(Position { segment: active.number, block: active.end });
            }
        }
        self.begin_segment(blocks, need)
    }

    fn begin_segment(&mut self, blocks: u32, need: Need) -> Result<Position, WriteError> {
        let core = self.core.clone();
        // The disk may have been unmounted: data must not land on whatever is below (D23).
        identity::check_unchanged(&core.env, &core.path, &core.identity, core.device).map_err(|why| core.health.kill(why))?;
        let whole = core.options.segment_bytes;
        let fits_outside_reserve = available_bytes(&core)? >= whole.saturating_add(core.options.reserve_bytes);
        if need == Need::Shard && !fits_outside_reserve {
            return Err(core.health.set_full());
        }
        let mut size = whole;
        let file = match core.segments.create(self.next_number, whole) {
            Err(error) if need == Need::Maintenance && means_full(&error) => {
                // So full that not even the reserve is there; a delete that frees space needs only a little.
                size = SMALL_SEGMENT_BYTES.max(u64::from(blocks) * BLOCK_BYTES);
                core.segments.create(self.next_number, size)
            }
            created => created,
        };
        let file = file.map_err(|error| {
            let why = format!("cannot begin {}: {error}", core.segments.path(self.next_number).display());
            match error.kind() {
                _ if means_full(&error) => core.health.set_full(),
                io::ErrorKind::ReadOnlyFilesystem => core.health.freeze(why),
                _ => core.health.kill(why),
            }
        })?;
        self.end_segment();
        let number = self.next_number;
        self.next_number = number.checked_add(1).expect("2^32 segments outlive any disk");
        tracing::debug!(disk = %core.identity.disk, number, "began a segment");
        if fits_outside_reserve {
            core.health.set_room();
        }
        self.active = Some(Active { number, file, end: 0, limit: blocks_of(size), from_reserve: !fits_outside_reserve });
        Ok(Position { segment: number, block: 0 })
    }

    /// Gives the unused end of the active segment back.
    fn end_segment(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Err(error) = active.file.set_len(u64::from(active.end) * BLOCK_BYTES) {
            tracing::warn!(disk = %self.core.identity.disk, %error, "cannot shorten a full segment");
        }
    }
}

fn write_parts(file: &Arc<dyn File>, header: &Header, head: &[u8], data: &[u8], table: &[u8]) -> io::Result<()> {
    file.write_at(head, header.at.offset())?;
    file.write_at(data, header.data_offset())?;
    if table.is_empty() { Ok(()) } else { file.write_at(table, header.table_offset()) }
}

fn available_bytes(core: &Core) -> Result<u64, WriteError> {
    match core.env.fs.space(&core.path) {
        Ok(space) => Ok(space.available_bytes),
        Err(error) => Err(core.health.kill(format_args!("cannot tell the free space of {}: {error}", core.path.display()))),
    }
}

impl Stream {
    fn need(&self) -> Need {
        match self.purpose {
            Purpose::New => Need::Shard,
            Purpose::Move { .. } => Need::Maintenance,
        }
    }
}
