//! Reads units, believing nothing that was not checked.
//!
//! A unit is returned only if the record at its place has a valid header that names this place, shard, unit and length, and its
//! data has the BLAKE3 the header gives. When a check fails the index is asked again: a delete or a compaction may have freed
//! the place while it was read, and then the failure says nothing about the shard.

use std::io;

use bytes::Bytes;
use placement_types::ShardId;

use crate::error::ReadError;
use crate::format::{Entry, HEADER_BYTES, Header, RecordKind, UnitPlace, hash};
use crate::limits::READ_ATTEMPTS_MAX;
use crate::log::Core;
use crate::scan::read_seal_table;

/// Why a place could not be read; the reader decides what it means for the shard.
pub(crate) enum Broken {
    Unit(u32),
    Seal,
    Io { segment: u32, source: io::Error },
}

pub(crate) fn entry_of(core: &Core, shard: ShardId) -> Result<Entry, ReadError> {
    let disk = core.identity.disk;
    match core.index.get(shard) {
        Ok(Some(entry)) => Ok(entry),
        Ok(None) => Err(ReadError::NotFound { disk, shard }),
        Err(source) => {
            core.index_failed(&source);
            Err(ReadError::Index { disk, source })
        }
    }
}

/// Reads `count` units from `first`. Blocks.
pub(crate) fn read_units(core: &Core, shard: ShardId, first: u32, count: u32) -> Result<Vec<Bytes>, ReadError> {
    with_entry(core, shard, |entry| {
        let mut units = Vec::new();
        for unit in first..first.saturating_add(count) {
            let Some(place) = entry.units.get(unit as usize) else {
                let disk = core.identity.disk;
                let units = u32::try_from(entry.units.len()).expect("at most UNITS_MAX");
                return Ok(Err(ReadError::NoSuchUnit { disk, shard, unit, units }));
            };
            units.push(read_unit(core, shard, unit, *place, entry)?);
        }
        Ok(Ok(units))
    })?
}

/// Reads everything of a shard and its seal, one unit in memory at a time. Blocks.
pub(crate) fn verify_shard(core: &Core, shard: ShardId) -> Result<(), ReadError> {
    with_entry(core, shard, |entry| verify_entry(core, shard, entry))
}

/// Reads everything that this entry names. Blocks.
pub(crate) fn verify_entry(core: &Core, shard: ShardId, entry: &Entry) -> Result<(), Broken> {
    for (unit, place) in (0..).zip(&entry.units) {
        read_unit(core, shard, unit, *place, entry)?;
    }
    verify_seal(core, shard, entry)
}

fn with_entry<T>(core: &Core, shard: ShardId, read: impl Fn(&Entry) -> Result<T, Broken>) -> Result<T, ReadError> {
    let mut entry = entry_of(core, shard)?;
    for _ in 1..READ_ATTEMPTS_MAX {
        match read(&entry) {
            Ok(value) => return Ok(value),
            Err(broken) => {
                let now = entry_of(core, shard)?;
                if now == entry {
                    return Err(broken.into_error(core, shard));
                }
                entry = now;
            }
        }
    }
    read(&entry).map_err(|broken| broken.into_error(core, shard))
}

impl Broken {
    fn into_error(self, core: &Core, shard: ShardId) -> ReadError {
        let disk = core.identity.disk;
        match self {
            Broken::Unit(unit) => ReadError::Corrupt { disk, shard, unit },
            Broken::Seal => ReadError::CorruptSeal { disk, shard },
            Broken::Io { segment, source } => ReadError::Io { disk, path: core.segments.path(segment), source },
        }
    }

    /// A file that ends early or is gone is damage like any other; everything else is the disk's own error.
    fn of(error: io::Error, segment: u32, damage: Broken) -> Broken {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => damage,
            _ => Broken::Io { segment, source: error },
        }
    }
}

fn read_unit(core: &Core, shard: ShardId, unit: u32, place: UnitPlace, entry: &Entry) -> Result<Bytes, Broken> {
    let segment = place.at.segment;
    let mut record = vec![0; HEADER_BYTES + place.bytes as usize];
    core.segments
        .file(segment)
        .and_then(|file| file.read_exact_at(&mut record, place.at.offset()))
        .map_err(|error| Broken::of(error, segment, Broken::Unit(unit)))?;
    let header = Header::read(&record, &core.key, place.at).map_err(|_| Broken::Unit(unit))?;
    let kind = if place.at == entry.seal { RecordKind::Seal } else { RecordKind::Unit };
    let named = (header.kind, header.shard, header.unit, header.data_bytes);
    if named != (kind, shard, unit, place.bytes) || hash(&record[HEADER_BYTES..]) != header.data_hash {
        return Err(Broken::Unit(unit));
    }
    Ok(Bytes::from(record).slice(HEADER_BYTES..))
}

fn verify_seal(core: &Core, shard: ShardId, entry: &Entry) -> Result<(), Broken> {
    let segment = entry.seal.segment;
    let failed = |error| Broken::of(error, segment, Broken::Seal);
    let file = core.segments.file(segment).map_err(failed)?;
    let mut head = [0; HEADER_BYTES];
    file.read_exact_at(&mut head, entry.seal.offset()).map_err(failed)?;
    let header = Header::read(&head, &core.key, entry.seal).map_err(|_| Broken::Seal)?;
    let table = read_seal_table(&file, &header).map_err(failed)?.ok_or(Broken::Seal)?;
    let named = (header.kind, header.shard) == (RecordKind::Seal, shard);
    if named && Entry::of_seal(&header, &table) == *entry { Ok(()) } else { Err(Broken::Seal) }
}
