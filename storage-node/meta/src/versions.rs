//! Versions of a key: PUT, DELETE and their conditions, as S3 defines them for unversioned, versioned and suspended buckets.
//!
//! The current version is the one with the highest sequence, delete marker or not. The null version is an ordinary row in that
//! order, with a pointer to find it; a write that makes a new null version first removes the old one.

use placement_types::{Timestamp, TxnId};
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::{Outcome, WriteCondition};
use storage_node_proto::object::{
    Data, ObjectAttributes, ObjectRecord, Version, VersionBody, VersionId, VersionSelector, Versioning,
};

use crate::apply::Entry;
use crate::data;
use crate::format::{self, Place, table};
use crate::view::{Stored, View};

pub(crate) fn put(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    versioning: Versioning,
    condition: &WriteCondition,
    record: &ObjectRecord,
    data: Option<&Data>,
) -> Result<Outcome, KvError> {
    if let Some(refusal) = refusal(View(&*state), place, condition)? {
        return Ok(refusal);
    }
    if View(&*state).has(&format::data_row(place, entry.txn))? {
        return Ok(Outcome::Malformed { why: "the transaction has written this key before".into() });
    }
    let version = add(state, entry, place, versioning, entry.time, VersionBody::Object(record.clone()))?;
    if let Some(data) = data {
        data::file(state, place, entry.txn, data)?;
    }
    Ok(Outcome::Written { version, modified: entry.time })
}

pub(crate) fn delete(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    versioning: Versioning,
    condition: &WriteCondition,
    selector: VersionSelector,
) -> Result<Outcome, KvError> {
    if let Some(refusal) = refusal(View(&*state), place, condition)? {
        return Ok(refusal);
    }
    let (remove, mark) = match (selector, versioning) {
        (VersionSelector::Exact(id), _) => (Some(id), false),
        (VersionSelector::Current, Versioning::Unversioned) => (Some(VersionId::Null), false),
        (VersionSelector::Current, Versioning::Suspended) => (Some(VersionId::Null), true),
        // A marker on top, also over a marker and where there is nothing: three deletes make three markers.
        (VersionSelector::Current, Versioning::Enabled) => (None, true),
    };
    let removed = match remove {
        Some(id) => remove_version(state, entry, place, id)?,
        None => None,
    };
    let marker = match mark {
        true => Some(add(state, entry, place, versioning, entry.time, VersionBody::DeleteMarker)?),
        false => None,
    };
    let removed_marker = removed.as_ref().is_some_and(|removed| removed.record().is_none());
    Ok(Outcome::Deleted { removed: removed.map(|removed| removed.version.id), removed_marker, marker })
}

pub(crate) fn set_attributes(
    state: &mut Overlay<'_>,
    place: Place<'_>,
    selector: VersionSelector,
    written_by: TxnId,
    attributes: &ObjectAttributes,
) -> Result<Outcome, KvError> {
    let Some(mut stored) = View(&*state).selected(place, selector)? else {
        return Ok(match selector {
            VersionSelector::Current => Outcome::NoSuchKey,
            VersionSelector::Exact(_) => Outcome::NoSuchVersion,
        });
    };
    let VersionBody::Object(record) = &mut stored.version.body else { return Ok(Outcome::IsDeleteMarker) };
    if stored.version.txn != written_by {
        return Ok(Outcome::PreconditionFailed);
    }
    record.attributes = attributes.clone();
    state.put(format::version_row(place, stored.sequence), format::encode_value(&stored.version));
    Ok(Outcome::Done)
}

/// Why the condition forbids a write, if it does. A delete marker counts as absent, and it is always the current version that
/// is compared, also when another one is to be deleted.
pub(crate) fn refusal(view: View<'_>, place: Place<'_>, condition: &WriteCondition) -> Result<Option<Outcome>, KvError> {
    if *condition == WriteCondition::None {
        return Ok(None);
    }
    let current = view.current(place)?;
    let record = current.as_ref().and_then(Stored::record);
    Ok(match (condition, record) {
        (WriteCondition::None, _) | (WriteCondition::Absent, None) | (WriteCondition::Present, Some(_)) => None,
        (WriteCondition::ETag { etag }, Some(record)) => (record.etag != *etag).then_some(Outcome::PreconditionFailed),
        (WriteCondition::Absent, Some(_)) => Some(Outcome::PreconditionFailed),
        (WriteCondition::ETag { .. } | WriteCondition::Present, None) => Some(Outcome::NoSuchKey),
    })
}

/// Makes a new current version. Outside versioned buckets it replaces the null version.
pub(crate) fn add(
    state: &mut Overlay<'_>,
    entry: Entry,
    place: Place<'_>,
    versioning: Versioning,
    modified: Timestamp,
    body: VersionBody,
) -> Result<VersionId, KvError> {
    let sequence = next_sequence(state, entry)?;
    let id = match versioning {
        Versioning::Enabled => VersionId::Id { sequence, salt: salt(entry.txn) },
        Versioning::Unversioned | Versioning::Suspended => {
            remove_version(state, entry, place, VersionId::Null)?;
            state.put(format::key_row(table::NULL_VERSIONS, place), format::encode_value(&sequence));
            VersionId::Null
        }
    };
    let version = Version { id, txn: entry.txn, modified, body };
    state.put(format::version_row(place, sequence), format::encode_value(&version));
    Ok(id)
}

/// Removes a version and drops its data; `None` when there is no such version.
fn remove_version(state: &mut Overlay<'_>, entry: Entry, place: Place<'_>, id: VersionId) -> Result<Option<Stored>, KvError> {
    let Some(stored) = View(&*state).version(place, id)? else { return Ok(None) };
    state.delete(format::version_row(place, stored.sequence));
    if id == VersionId::Null {
        state.delete(format::key_row(table::NULL_VERSIONS, place));
    }
    if let Some(record) = stored.record() {
        for data in &record.data {
            data::drop_record(state, entry, place, data.txn)?;
        }
    }
    Ok(Some(stored))
}

/// Above every earlier one of the group, and at least the entry's index: were the row that counts lost with the group's state,
/// a rebuilt one would still not go backwards within a log.
fn next_sequence(state: &mut Overlay<'_>, entry: Entry) -> Result<u64, KvError> {
    let mut group = View(&*state).group()?;
    group.sequence = group.sequence.saturating_add(1).max(entry.index);
    state.put(vec![table::GROUP], format::encode_value(&group));
    Ok(group.sequence)
}

fn salt(txn: TxnId) -> u64 {
    u64::try_from(txn.as_u128() >> 64).expect("the upper half of 128 bits fits 64")
}
