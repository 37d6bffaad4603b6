//! Fences of shelves: how a bucket is deleted although its keys are spread over groups.
//!
//! Each group fences its shelves while they are empty; once all are, the system group deletes the bucket and has them purged,
//! else the fences are taken back. A fence changes nothing else, so that a refused DeleteBucket has no effect (K6): uploads in
//! progress, which do not keep S3 from deleting a bucket, live on behind it until the purge. A purged shelf's fence stays for
//! ever, a few bytes, against commands that come late: the bucket's id never comes back.

use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::{Outcome, Shelf};
use storage_node_proto::object::Upload;

use crate::apply::Entry;
use crate::format::{self, Place, table};
use crate::limits::PURGE_PARTS_MAX;
use crate::uploads;
use crate::view::View;

pub(crate) fn fence(state: &mut Overlay<'_>, entry: Entry, shelf: Shelf) -> Result<Outcome, KvError> {
    if View(&*state).is_fenced(shelf)? {
        return Ok(Outcome::Done);
    }
    if !View(&*state).rows_under(&format::shelf_row(table::VERSIONS, shelf), 1)?.is_empty() {
        return Ok(Outcome::NotEmpty);
    }
    state.put(format::shelf_row(table::FENCES, shelf), format::encode_value(&entry.time));
    Ok(Outcome::Done)
}

pub(crate) fn unfence(state: &mut Overlay<'_>, shelf: Shelf) -> Result<Outcome, KvError> {
    if View(&*state).is_fenced(shelf)? {
        state.delete(format::shelf_row(table::FENCES, shelf));
    }
    Ok(Outcome::Done)
}

/// Aborts the uploads of a fenced shelf, some thousand parts at a time.
pub(crate) fn purge(state: &mut Overlay<'_>, entry: Entry, shelf: Shelf) -> Result<Outcome, KvError> {
    if !View(&*state).is_fenced(shelf)? {
        return Ok(Outcome::PreconditionFailed);
    }
    let rows = View(&*state).rows_under(&format::shelf_row(table::UPLOADS, shelf), PURGE_PARTS_MAX + 1)?;
    let mut dropped = 0;
    for (row, value) in rows {
        if dropped >= PURGE_PARTS_MAX {
            return Ok(Outcome::NotEmpty);
        }
        let key = format::key_of(format::split_row(&row)?.0)?;
        let place = Place { shelf, key: &key };
        let upload: Upload = format::decode_value("an upload", &value)?;
        let parts = uploads::all_parts(View(&*state), place, upload.id)?;
        dropped += parts.len().max(1);
        uploads::drop_upload(state, entry, place, &upload, parts)?;
    }
    Ok(Outcome::Done)
}
