//! Reading typed rows, the same for a command that changes them and a query that asks.

use bytes::Bytes;
use placement_types::codec::Decode;
use placement_types::{TxnId, UploadId};
use storage_node_kv::{KvError, KvRead, Prefixed, Step};
use storage_node_proto::command::Shelf;
use storage_node_proto::object::{ObjectRecord, Part, Upload, Version, VersionBody, VersionId, VersionSelector};

use crate::format::{self, Completed, DataRow, Group, Place, table};

/// A group's rows.
#[derive(Clone, Copy)]
pub(crate) struct View<'a>(pub(crate) &'a dyn KvRead);

/// A version and its place in the order of its key's.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) version: Version,
}

impl Stored {
    /// `None` for a delete marker.
    pub(crate) fn record(&self) -> Option<&ObjectRecord> {
        match &self.version.body {
            VersionBody::Object(record) => Some(record),
            VersionBody::DeleteMarker => None,
        }
    }
}

impl View<'_> {
    pub(crate) fn value<T: Decode>(self, what: &'static str, row: &[u8]) -> Result<Option<T>, KvError> {
        self.0.get(row)?.map(|bytes| format::decode_value(what, &bytes)).transpose()
    }

    pub(crate) fn has(self, row: &[u8]) -> Result<bool, KvError> {
        Ok(self.0.get(row)?.is_some())
    }

    /// Up to `limit` rows with `from <= row < to`. They are collected first, so that a caller may read other rows for each of
    /// them: a store need not allow that in the middle of a scan.
    pub(crate) fn rows(self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        let mut rows = Vec::new();
        if limit > 0 && from < to {
            self.0.scan(from, to, &mut |row, value| {
                rows.push((Bytes::copy_from_slice(row), Bytes::copy_from_slice(value)));
                if rows.len() < limit { Step::Next } else { Step::Stop }
            })?;
        }
        Ok(rows)
    }

    /// Up to `limit` rows that begin with `prefix`.
    pub(crate) fn rows_under(self, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.rows(prefix, &Prefixed::end_of(prefix), limit)
    }

    pub(crate) fn group(self) -> Result<Group, KvError> {
        Ok(self.value("the group", &[table::GROUP])?.unwrap_or_default())
    }

    pub(crate) fn is_fenced(self, shelf: Shelf) -> Result<bool, KvError> {
        self.has(&format::shelf_row(table::FENCES, shelf))
    }

    /// The newest version of a key, which may be a delete marker.
    pub(crate) fn current(self, place: Place<'_>) -> Result<Option<Stored>, KvError> {
        let rows = self.rows_under(&format::key_row(table::VERSIONS, place), 1)?;
        let Some((row, value)) = rows.first() else { return Ok(None) };
        Ok(Some(Stored { sequence: format::sequence_of(row)?, version: format::decode_value("a version", value)? }))
    }

    pub(crate) fn version(self, place: Place<'_>, id: VersionId) -> Result<Option<Stored>, KvError> {
        let sequence = match id {
            VersionId::Id { sequence, .. } => sequence,
            VersionId::Null => match self.null_sequence(place)? {
                Some(sequence) => sequence,
                None => return Ok(None),
            },
        };
        let version: Option<Version> = self.value("a version", &format::version_row(place, sequence))?;
        Ok(version.filter(|version| version.id == id).map(|version| Stored { sequence, version }))
    }

    pub(crate) fn selected(self, place: Place<'_>, selector: VersionSelector) -> Result<Option<Stored>, KvError> {
        match selector {
            VersionSelector::Current => self.current(place),
            VersionSelector::Exact(id) => self.version(place, id),
        }
    }

    pub(crate) fn null_sequence(self, place: Place<'_>) -> Result<Option<u64>, KvError> {
        self.value("a null version's sequence", &format::key_row(table::NULL_VERSIONS, place))
    }

    pub(crate) fn data(self, place: Place<'_>, txn: TxnId) -> Result<Option<DataRow>, KvError> {
        self.value("a data record", &format::data_row(place, txn))
    }

    pub(crate) fn upload(self, place: Place<'_>, upload: UploadId) -> Result<Option<Upload>, KvError> {
        self.value("an upload", &format::upload_row(place, upload))
    }

    pub(crate) fn part(self, place: Place<'_>, upload: UploadId, number: u16) -> Result<Option<Part>, KvError> {
        self.value("a part", &format::part_row(place, upload, number))
    }

    /// The parts of an upload with numbers of `from` and above, in order.
    pub(crate) fn parts(self, place: Place<'_>, upload: UploadId, from: u16, limit: usize) -> Result<Vec<Part>, KvError> {
        let prefix = format::place_row(table::PARTS, place, &[&upload.to_bytes()]);
        let rows = self.rows(&format::part_row(place, upload, from), &Prefixed::end_of(&prefix), limit)?;
        rows.iter().map(|(_, value)| format::decode_value("a part", value)).collect()
    }

    pub(crate) fn completed(self, place: Place<'_>, upload: UploadId) -> Result<Option<Completed>, KvError> {
        self.value("a completed upload", &format::completed_row(place, upload))
    }
}
