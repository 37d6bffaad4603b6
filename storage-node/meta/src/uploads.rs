//! Multipart uploads. An upload's parts are invisible until Complete makes a version of those listed, in one step: the listed
//! parts' data records stay where they are, everything else of the upload is dropped.

use std::collections::BTreeMap;

use bytes::Bytes;
use placement_types::UploadId;
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::{Outcome, WriteCondition};
use storage_node_proto::object::{Checksum, Data, DataRef, ObjectRecord, Part, Upload, VersionBody, Versioning};

use crate::apply::Entry;
use crate::format::{self, Completed, Place};
use crate::limits::PART_NUMBER_MAX;
use crate::view::View;
use crate::{data, transactions, versions};

/// What a part brings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartContent<'a> {
    pub(crate) md5: &'a [u8; 16],
    pub(crate) checksum: Option<&'a Checksum>,
    pub(crate) data: Option<&'a Data>,
}

pub(crate) fn create(state: &mut Overlay<'_>, place: Place<'_>, upload: &Upload) -> Result<Outcome, KvError> {
    let view = View(&*state);
    if view.upload(place, upload.id)?.is_some() || view.completed(place, upload.id)?.is_some() {
        return Ok(Outcome::Malformed { why: "the upload exists".into() });
    }
    state.put(format::upload_row(place, upload.id), format::encode_value(upload));
    state.put(format::ordered_upload_row(place, upload.initiated, upload.id), Bytes::new());
    Ok(Outcome::UploadCreated)
}

/// Stores a part, in place of an older one with its number. Also a part of zero bytes has a data record, so that all are alike.
pub(crate) fn put_part(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    upload: UploadId,
    number: u16,
    content: PartContent<'_>,
) -> Result<Outcome, KvError> {
    let view = View(&*state);
    if view.upload(place, upload)?.is_none() {
        return Ok(Outcome::NoSuchUpload);
    }
    if view.has(&format::data_row(place, entry.txn))? {
        return Ok(Outcome::Malformed { why: "the transaction has written this key before".into() });
    }
    if let Some(older) = view.part(place, upload, number)? {
        data::drop_record(state, entry, place, older.data.txn)?;
    }
    let empty = Data::Inline(Bytes::new());
    let stored = content.data.unwrap_or(&empty);
    let part = Part {
        number,
        data: DataRef { txn: entry.txn, bytes: stored.bytes() },
        modified: entry.time,
        md5: *content.md5,
        checksum: content.checksum.cloned(),
    };
    state.put(format::part_row(place, upload, number), format::encode_value(&part));
    data::file(state, place, entry.txn, stored)?;
    Ok(Outcome::PartWritten)
}

pub(crate) fn complete(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    id: UploadId,
    versioning: Versioning,
    condition: &WriteCondition,
    record: &ObjectRecord,
) -> Result<Outcome, KvError> {
    let view = View(&*state);
    let Some(upload) = view.upload(place, id)? else {
        // Another transaction completed it: the same list is answered as that one was, whatever became of the version.
        return Ok(match view.completed(place, id)? {
            Some(done) if done.etag == record.etag => Outcome::Written { version: done.version, modified: done.modified },
            _ => Outcome::NoSuchUpload,
        });
    };
    let mut parts: BTreeMap<u16, Part> = all_parts(view, place, id)?.into_iter().map(|part| (part.number, part)).collect();
    for (listed, data) in record.parts.iter().zip(&record.data) {
        match parts.get(&listed.number) {
            Some(part) if part.data == *data => {}
            Some(part) if part.data.txn == data.txn => {
                return Ok(Outcome::Malformed { why: "a part has not as many bytes as the list says".into() });
            }
            _ => return Ok(Outcome::PartsChanged),
        }
    }
    if let Some(refusal) = versions::refusal(view, place, condition)? {
        return Ok(refusal);
    }

    // As on AWS, an object's time is that of its upload's begin.
    let modified = upload.initiated;
    let record = ObjectRecord { attributes: upload.attributes.clone(), ..record.clone() };
    for listed in &record.parts {
        state.delete(format::part_row(place, id, listed.number));
        parts.remove(&listed.number);
    }
    let done = (record.etag.clone(), record.checksum.clone());
    // This may drop the data of the null version it replaces; the parts' own records are not among them.
    let version = versions::add(state, entry, place, versioning, modified, VersionBody::Object(record))?;
    drop_upload(state, entry, place, &upload, parts.into_values())?;
    let completed = Completed { version, modified, etag: done.0, checksum: done.1 };
    state.put(format::completed_row(place, id), format::encode_value(&completed));
    transactions::expire(state, entry.time, &format::completed_row(place, id));
    Ok(Outcome::Written { version, modified })
}

pub(crate) fn abort(state: &mut Overlay<'_>, entry: Entry, place: Place<'_>, id: UploadId) -> Result<Outcome, KvError> {
    let Some(upload) = View(&*state).upload(place, id)? else { return Ok(Outcome::NoSuchUpload) };
    let parts = all_parts(View(&*state), place, id)?;
    drop_upload(state, entry, place, &upload, parts)?;
    Ok(Outcome::UploadAborted)
}

/// Every part of an upload; the number of a part bounds how many.
pub(crate) fn all_parts(view: View<'_>, place: Place<'_>, id: UploadId) -> Result<Vec<Part>, KvError> {
    view.parts(place, id, 0, usize::from(PART_NUMBER_MAX))
}

/// Removes an upload and drops `parts`, those of its parts that still are there.
pub(crate) fn drop_upload(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    upload: &Upload,
    parts: impl IntoIterator<Item = Part>,
) -> Result<(), KvError> {
    for part in parts {
        state.delete(format::part_row(place, upload.id, part.number));
        data::drop_record(state, entry, place, part.data.txn)?;
    }
    state.delete(format::upload_row(place, upload.id));
    state.delete(format::ordered_upload_row(place, upload.initiated, upload.id));
    Ok(())
}
