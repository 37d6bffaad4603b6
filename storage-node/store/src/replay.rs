//! Replays the log into the index.
//!
//! How much a seal is checked depends on what is known of it. Each record says up to where the log had been fsynced when it
//! was written. A seal before the last such place was durable together with its units: it is indexed even if a unit is damaged
//! now, so that the damage is seen and repaired. Seals behind it may be torn, as nobody waited for their fsync to end; those
//! are indexed only if every byte of every unit is right, and else erased.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use placement_types::{DiskId, Env, File, ShardId};
use storage_node_kv::KvError;

use crate::error::OpenError;
use crate::format::{Entry, HEADER_BYTES, Header, RecordKey, RecordKind, SealTable, Tombstone, hash};
use crate::index::Index;
use crate::limits::{REPLAY_STAGED_MAX, SCAN_WINDOW_BYTES, SEGMENT_BYTES_MAX};
use crate::position::{BLOCK_BYTES, Position, blocks_of};
use crate::scan::{Scan, read_delete_table, read_seal_table};
use crate::segment::{Fill, Segments};

/// The log of a disk that is being opened.
pub(crate) struct LogFiles<'a> {
    pub env: &'a Env,
    pub disk: DiskId,
    pub key: &'a RecordKey,
    pub segments: &'a Segments,
    /// The segments there are, ascending.
    pub numbers: &'a [u32],
}

/// Why an index could not be brought up to date.
pub(crate) enum ReplayError {
    Index(KvError),
    Log(OpenError),
}

impl From<KvError> for ReplayError {
    fn from(error: KvError) -> Self {
        ReplayError::Index(error)
    }
}

/// What a record asks of the index.
enum Change {
    Put { header: Box<Header>, table: SealTable },
    Delete(Vec<Tombstone>),
}

pub(crate) struct Replay<'a> {
    log: &'a LogFiles<'a>,
    index: &'a Index,
    from: Position,
    /// Before this, everything was fsynced before the crash.
    durable: Position,
    /// Changes of records at or behind `durable`: how to check them is not known yet. As many as fit between two fsyncs.
    undecided: VecDeque<(Position, Change)>,
    /// Changes not yet written to the index.
    staged: BTreeMap<ShardId, Option<Entry>>,
    /// The segments replayed, to fsync.
    touched: Vec<u32>,
    end: Position,
}

impl<'a> Replay<'a> {
    pub fn new(log: &'a LogFiles<'a>, index: &'a Index, from: Position) -> Self {
        Self {
            log,
            index,
            from,
            durable: from,
            undecided: VecDeque::new(),
            staged: BTreeMap::new(),
            touched: Vec::new(),
            end: from,
        }
    }

    /// Replays one segment; they come in ascending order.
    pub fn segment(&mut self, number: u32) -> Result<(), ReplayError> {
        let segments = self.log.segments;
        let path = || segments.path(number);
        let io = |source| ReplayError::Log(OpenError::Io { path: path(), source });
        if number < self.from.segment {
            // It was shortened to what it holds when the next one was begun.
            let metadata = self.log.env.fs.metadata(&path()).map_err(io)?;
            let end = blocks_of(metadata.map_or(0, |metadata| metadata.bytes).min(SEGMENT_BYTES_MAX));
            segments.set_fill(number, Fill { end, ..Fill::default() });
            return Ok(());
        }
        let file = segments.file(number).map_err(io)?;
        self.touched.push(number);
        let start = if number == self.from.segment { self.from } else { Position { segment: number, block: 0 } };
        let mut end = start.block;
        let mut scan = Scan::new(&file, self.log.key, start).map_err(io)?;
        while let Some(header) = scan.next().map_err(io)? {
            end = header.at.block + header.extent().blocks;
            self.record(&file, header).map_err(|error| match error {
                RecordError::Io(source) => io(source),
                RecordError::Index(error) => ReplayError::Index(error),
            })?;
        }
        segments.set_fill(number, Fill { end, ..Fill::default() });
        self.end = Position { segment: number, block: end };
        Ok(())
    }

    fn record(&mut self, file: &Arc<dyn File>, header: Header) -> Result<(), RecordError> {
        self.durable = self.durable.max(header.durable);
        while self.undecided.front().is_some_and(|(at, _)| *at < self.durable) {
            let (_, change) = self.undecided.pop_front().expect("looked at above");
            self.apply(change, Trust::Durable)?;
        }
        let at = header.at;
        let change = match header.kind {
            RecordKind::Unit => return Ok(()),
            RecordKind::Seal => read_seal_table(file, &header)?.map(|table| Change::Put { header: Box::new(header), table }),
            RecordKind::Delete => read_delete_table(file, &header)?.map(|table| Change::Delete(table.tombstones)),
        };
        match change {
            Some(change) => self.undecided.push_back((at, change)),
            None => tracing::warn!(disk = %self.log.disk, ?at, "a seal or delete record is torn or damaged"),
        }
        Ok(())
    }

    fn apply(&mut self, change: Change, trust: Trust) -> Result<(), RecordError> {
        match change {
            Change::Put { header, table } => {
                let shard = header.shard;
                // The index may be ahead of its checkpoint.
                if self.current(shard)?.is_some_and(|entry| entry.seal >= header.at) {
                    return Ok(());
                }
                let whole = self.is_whole(&header, &table, trust)?;
                if trust == Trust::Unknown && !whole {
                    tracing::info!(disk = %self.log.disk, %shard, "dropped a shard that was torn by the crash");
                    // Later records will say that everything before them is durable: a seal left here would then be believed.
                    let file = self.log.segments.file_to_write(header.at.segment)?;
                    file.write_at(&[0; HEADER_BYTES], header.at.offset())?;
                    return Ok(());
                }
                if !whole {
                    tracing::debug!(disk = %self.log.disk, %shard, "indexed a damaged shard");
                }
                self.stage(shard, Some(Entry::of_seal(&header, &table)))?;
            }
            Change::Delete(tombstones) => {
                for Tombstone { shard, newest } in tombstones {
                    if self.current(shard)?.is_some_and(|entry| entry.seal <= newest) {
                        self.stage(shard, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn current(&self, shard: ShardId) -> Result<Option<Entry>, KvError> {
        match self.staged.get(&shard) {
            Some(staged) => Ok(staged.clone()),
            None => self.index.get(shard),
        }
    }

    fn stage(&mut self, shard: ShardId, entry: Option<Entry>) -> Result<(), KvError> {
        self.staged.insert(shard, entry);
        if self.staged.len() < REPLAY_STAGED_MAX { Ok(()) } else { self.write_staged() }
    }

    fn write_staged(&mut self) -> Result<(), KvError> {
        let staged = std::mem::take(&mut self.staged);
        let changes: Vec<_> = staged.iter().map(|(shard, entry)| (*shard, entry.as_ref())).collect();
        if changes.is_empty() { Ok(()) } else { self.index.write(&changes) }
    }

    /// Whether the units are what the seal says: by their headers, and to the last byte where a crash may have torn them.
    fn is_whole(&self, seal: &Header, table: &SealTable, trust: Trust) -> io::Result<bool> {
        for (unit, sealed) in (0..).zip(&table.units) {
            let file = match self.log.segments.file(sealed.at.segment) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                file => file?,
            };
            let data_bytes = if trust == Trust::Unknown { sealed.bytes as usize } else { 0 };
            let mut record = vec![0; HEADER_BYTES + data_bytes];
            match file.read_exact_at(&mut record, sealed.at.offset()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                read => read?,
            }
            let Ok(header) = Header::read(&record, self.log.key, sealed.at) else { return Ok(false) };
            if (header.shard, header.unit, header.data_bytes) != (seal.shard, unit, sealed.bytes)
                || header.data_hash != sealed.hash
                || (trust == Trust::Unknown && hash(&record[HEADER_BYTES..]) != sealed.hash)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies the rest and makes the log durable up to the end; returns that end.
    pub fn finish(mut self) -> Result<Position, ReplayError> {
        let log = self.log;
        while let Some((_, change)) = self.undecided.pop_front() {
            self.apply(change, Trust::Unknown).map_err(|error| match error {
                RecordError::Io(source) => ReplayError::Log(OpenError::Io { path: log.segments.dir().to_owned(), source }),
                RecordError::Index(error) => ReplayError::Index(error),
            })?;
        }
        self.write_staged()?;
        for number in &self.touched {
            let io = |source| ReplayError::Log(OpenError::Io { path: log.segments.path(*number), source });
            let file = log.segments.file_to_write(*number).map_err(io)?;
            self.rewrite_unsure(*number, &file).map_err(io)?;
            if *number != self.end.segment {
                // Ended by a crash: give its unused end back. Nothing valid lies behind the last record.
                let end = log.segments.fill(*number).map_or(0, |fill| fill.end);
                file.set_len(u64::from(end) * BLOCK_BYTES).map_err(io)?;
            }
            file.sync_data().map_err(io)?;
        }
        let dir = log.segments.dir();
        log.env.fs.sync_dir(dir).map_err(|source| ReplayError::Log(OpenError::Io { path: dir.to_owned(), source }))?;
        Ok(self.end)
    }
}

impl Replay<'_> {
    /// Writes the records behind `durable` over themselves, so that the next fsync really writes them. The same bytes in the
    /// same place: another crash in the middle changes nothing.
    fn rewrite_unsure(&self, number: u32, file: &Arc<dyn File>) -> io::Result<()> {
        let end = self.log.segments.fill(number).map_or(0, |fill| u64::from(fill.end) * BLOCK_BYTES).min(file.len()?);
        let mut offset = match number.cmp(&self.durable.segment) {
            Ordering::Less => end,
            Ordering::Equal => self.durable.offset(),
            Ordering::Greater => 0,
        };
        let mut bytes = vec![0; SCAN_WINDOW_BYTES];
        while offset < end {
            let length = bytes.len().min((end - offset) as usize);
            file.read_exact_at(&mut bytes[..length], offset)?;
            file.write_at(&bytes[..length], offset)?;
            offset += length as u64;
        }
        Ok(())
    }
}

/// What is known of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It was fsynced, with everything before it.
    Durable,
    /// A crash may have torn it.
    Unknown,
}

enum RecordError {
    Io(io::Error),
    Index(KvError),
}

impl From<io::Error> for RecordError {
    fn from(error: io::Error) -> Self {
        RecordError::Io(error)
    }
}

impl From<KvError> for RecordError {
    fn from(error: KvError) -> Self {
        RecordError::Index(error)
    }
}
