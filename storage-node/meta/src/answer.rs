//! Answering queries.

use bytes::Bytes;
use placement_types::{ChunkId, ObjectKey, Timestamp, TxnId, UploadId};
use storage_node_kv::{KvError, KvRead, Prefixed};
use storage_node_proto::command::{FiledChunk, Garbage, Shelf};
use storage_node_proto::object::{Data, VersionBody, VersionSelector};
use storage_node_proto::query::{Answer, ListRange, Query};

use crate::claims;
use crate::format::{self, GarbageRow, Place, table};
use crate::limits::{NAMES_MAX, PAGE_ITEMS_MAX};
use crate::list;
use crate::survey;
use crate::view::{Stored, View};

/// Answers a query. `state` must be one snapshot, because an answer is put together from several reads; that it is recent
/// enough (I10) is the caller's to see to. An error is a corrupt or failing store.
pub fn answer(state: &dyn KvRead, query: &Query) -> Result<Answer, KvError> {
    let view = View(state);
    if let Some(why) = beyond_limits(query) {
        return Ok(Answer::Malformed { why: why.to_owned() });
    }
    if let Some(shelf) = shelf_of(query)
        && view.is_fenced(shelf)?
    {
        return Ok(Answer::BucketGone);
    }
    match query {
        Query::Version { shelf, key, selector } => version(view, Place { shelf: *shelf, key }, *selector),
        Query::Data { shelf, key, txns } => data(view, Place { shelf: *shelf, key }, txns),
        Query::ListObjects { shelf, list } => {
            list::objects(view, *shelf, list).map(|(items, more)| Answer::Objects { items, more })
        }
        Query::ListVersions { shelf, list, version_marker } => {
            list::versions(view, *shelf, list, *version_marker).map(|(items, more)| Answer::Versions { items, more })
        }
        Query::ListUploads { shelf, list, upload_marker } => {
            list::uploads(view, *shelf, list, *upload_marker).map(|(items, more)| Answer::Uploads { items, more })
        }
        Query::Upload { shelf, key, upload } => {
            let found = view.upload(Place { shelf: *shelf, key }, *upload)?;
            Ok(found.map_or(Answer::NoSuchUpload, |upload| Answer::Upload { upload }))
        }
        Query::CompletedUpload { shelf, key, upload } => completed(view, *shelf, key, *upload),
        Query::ListParts { shelf, key, upload, after, limit } => {
            parts(view, Place { shelf: *shelf, key }, *upload, *after, *limit)
        }
        Query::Garbage { before, after, limit } => garbage(view, *before, *after, *limit),
        Query::Degraded { after, limit } => degraded(view, *after, *limit),
        Query::Referenced { txns } => referenced(view, txns),
        Query::Members => Ok(Answer::Malformed { why: "the members of a group are no part of its state".into() }),
        Query::Survey { after, limit, now } => survey::chunks(view, after.as_ref(), *limit, *now),
        Query::Holdings { disks, after, limit } => survey::holdings(view, disks, after.as_ref(), *limit),
    }
}

fn beyond_limits(query: &Query) -> Option<&'static str> {
    let page = |limit: u32| (limit > PAGE_ITEMS_MAX).then_some("a page is longer than may be asked for");
    let names = |count: usize| (count > NAMES_MAX).then_some("too many ids");
    match query {
        Query::ListObjects { list: ListRange { limit, .. }, .. }
        | Query::ListVersions { list: ListRange { limit, .. }, .. }
        | Query::ListUploads { list: ListRange { limit, .. }, .. }
        | Query::ListParts { limit, .. }
        | Query::Garbage { limit, .. }
        | Query::Degraded { limit, .. }
        | Query::Survey { limit, .. } => page(*limit),
        Query::Holdings { disks, limit, .. } => page(*limit).or(names(disks.len())),
        Query::Data { txns, .. } | Query::Referenced { txns } => names(txns.len()),
        Query::Version { .. } | Query::Upload { .. } | Query::CompletedUpload { .. } | Query::Members => None,
    }
}

/// The shelf of a query that a client's request asks.
fn shelf_of(query: &Query) -> Option<Shelf> {
    match query {
        Query::Version { shelf, .. }
        | Query::Data { shelf, .. }
        | Query::ListObjects { shelf, .. }
        | Query::ListVersions { shelf, .. }
        | Query::ListUploads { shelf, .. }
        | Query::Upload { shelf, .. }
        | Query::CompletedUpload { shelf, .. }
        | Query::ListParts { shelf, .. } => Some(*shelf),
        Query::Garbage { .. }
        | Query::Degraded { .. }
        | Query::Referenced { .. }
        | Query::Members
        | Query::Survey { .. }
        | Query::Holdings { .. } => None,
    }
}

fn version(view: View<'_>, place: Place<'_>, selector: VersionSelector) -> Result<Answer, KvError> {
    let version = match (view.selected(place, selector)?, selector) {
        (Some(Stored { version, .. }), VersionSelector::Current) if version.body == VersionBody::DeleteMarker => {
            return Ok(Answer::NoSuchKey { marker: Some(version.id) });
        }
        (Some(stored), _) => stored.version,
        (None, VersionSelector::Current) => return Ok(Answer::NoSuchKey { marker: None }),
        (None, VersionSelector::Exact(_)) => return Ok(Answer::NoSuchVersion),
    };
    let inline = match &version.body {
        VersionBody::Object(record) if record.data.len() == 1 => match view.data(place, record.data[0].txn)? {
            Some(row) => match row.data {
                Data::Inline(bytes) => Some(bytes),
                Data::Chunks(_) => None,
            },
            None => return Err(KvError::Corrupt { detail: format!("the data record of transaction {} is lost", version.txn) }),
        },
        VersionBody::Object(record) if record.data.is_empty() => Some(Bytes::new()),
        VersionBody::Object(_) | VersionBody::DeleteMarker => None,
    };
    Ok(Answer::Version { version, inline })
}

fn data(view: View<'_>, place: Place<'_>, txns: &[TxnId]) -> Result<Answer, KvError> {
    let records = txns.iter().map(|txn| Ok(view.data(place, *txn)?.map(|row| row.data))).collect::<Result<_, KvError>>()?;
    Ok(Answer::Data { records })
}

fn completed(view: View<'_>, shelf: Shelf, key: &ObjectKey, upload: UploadId) -> Result<Answer, KvError> {
    Ok(match view.completed(Place { shelf, key }, upload)? {
        Some(done) => {
            Answer::CompletedUpload { version: done.version, modified: done.modified, etag: done.etag, checksum: done.checksum }
        }
        None => Answer::NoSuchUpload,
    })
}

fn parts(view: View<'_>, place: Place<'_>, upload: UploadId, after: u16, limit: u32) -> Result<Answer, KvError> {
    if view.upload(place, upload)?.is_none() {
        return Ok(Answer::NoSuchUpload);
    }
    let Some(first) = after.checked_add(1) else { return Ok(Answer::Parts { parts: Vec::new(), more: false }) };
    let limit = count(limit);
    let mut parts = view.parts(place, upload, first, limit.saturating_add(1))?;
    let more = parts.len() > limit;
    parts.truncate(limit);
    Ok(Answer::Parts { parts, more })
}

fn garbage(view: View<'_>, before: Timestamp, after: Option<(Timestamp, ChunkId)>, limit: u32) -> Result<Answer, KvError> {
    // No transaction sorts after the one of all ones, so this is just after the last row of that time and chunk.
    let past = |since, chunk| {
        let mut row = format::garbage_row(since, chunk, TxnId::from_u128(u128::MAX));
        row.push(0);
        row
    };
    let from = after.map_or_else(|| vec![table::GARBAGE], |(since, chunk)| past(since, chunk));
    let to = format::row(table::GARBAGE, &[&before.as_millis().to_be_bytes()]);
    let read = |(_, value): (Bytes, Bytes)| Ok(format::decode_value::<GarbageRow>("garbage", &value)?.garbage);
    let mut garbage: Vec<Garbage> = view.rows(&from, &to, count(limit))?.into_iter().map(read).collect::<Result<_, KvError>>()?;
    // The rest of the last time and chunk, which a caller could not resume in the middle of.
    if let Some(last) = garbage.last().filter(|_| garbage.len() == count(limit)) {
        let (since, chunk) = (last.since, last.entry.chunk);
        let group = format::row(table::GARBAGE, &[&since.as_millis().to_be_bytes(), &chunk.to_bytes()]);
        garbage.retain(|one| (one.since, one.entry.chunk) != (since, chunk));
        for row in view.rows_under(&group, usize::MAX)? {
            garbage.push(read(row)?);
        }
    }
    Ok(Answer::Garbage { garbage })
}

fn degraded(view: View<'_>, after: Option<ChunkId>, limit: u32) -> Result<Answer, KvError> {
    let from = match after {
        // The id and a zero byte: the first row after it.
        Some(chunk) => format::row(table::DEGRADED, &[&chunk.to_bytes(), &[0]]),
        None => vec![table::DEGRADED],
    };
    let rows = view.rows(&from, &Prefixed::end_of(&[table::DEGRADED]), count(limit))?;
    let chunks: Result<Vec<FiledChunk>, KvError> =
        rows.iter().map(|(_, value)| format::decode_value("a degraded chunk", value)).collect();
    Ok(Answer::Degraded { chunks: chunks? })
}

fn referenced(view: View<'_>, txns: &[TxnId]) -> Result<Answer, KvError> {
    let mut referenced = Vec::new();
    for txn in txns {
        if claims::is_referenced(view, *txn)? {
            referenced.push(*txn);
        }
    }
    Ok(Answer::Referenced { txns: referenced })
}

pub(crate) fn count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
