//! Listing a shelf exactly as S3 pages it, by a scan that skips: past a folded common prefix, past the older versions of a key.
//!
//! Items are keys and common prefixes together, in byte order. A page holds the first `limit` items after `after`, and `more`
//! tells exactly whether there is another one: the scan goes on to the next item, not to the next row, so a last prefix that
//! swallows all remaining keys ends the listing.
//!
//! Why resuming works: let `after` fold to the prefix `p`. A key beyond `after` either begins with `p`, and then its item is
//! `p`, which does not sort after `after`; or it is beyond all keys that begin with `p`. So the scan resumes after `p`'s last
//! key, whether `after` is `p` itself or a key under it.

use storage_node_kv::{KvError, Prefixed, Step};
use storage_node_proto::command::Shelf;
use storage_node_proto::object::{Upload, Version, VersionId};
use storage_node_proto::query::{ListItem, ListRange};

use bytes::Bytes;
use placement_types::{ObjectKey, UploadId};

use crate::format::{self, Place, table};
use crate::view::View;

/// A page: its items, and whether there are more after it.
pub(crate) type Page<T> = (Vec<ListItem<T>>, bool);

/// Current versions that are no delete markers.
pub(crate) fn objects(view: View<'_>, shelf: Shelf, list: &ListRange) -> Result<Page<Version>, KvError> {
    let walk = Walk { table: table::VERSIONS, shelf, list, start: start(table::VERSIONS, shelf, list), rows: Rows::FirstOfKey };
    // A prefix under which all objects are deleted is not there, hence the look at the row before folding it.
    walk.run(view, &mut |_, value| Ok(!format::is_marker(value)?), &mut |_, value| format::listed_version(value))
}

/// All versions and delete markers, each with whether it is its key's latest.
pub(crate) fn versions(
    view: View<'_>,
    shelf: Shelf,
    list: &ListRange,
    marker: Option<VersionId>,
) -> Result<Page<(Version, bool)>, KvError> {
    let mut start = start(table::VERSIONS, shelf, list);
    // The key whose latest version was met already.
    let mut met: Vec<u8> = Vec::new();
    if let Some((key, marker)) = marked_key(list).zip(marker) {
        let place = Place { shelf, key: &key };
        let sequence = match marker {
            VersionId::Id { sequence, .. } => Some(sequence),
            VersionId::Null => view.null_sequence(place)?,
        };
        // The null version may have been deleted since the last page. Then nobody knows where it was, and the key is listed
        // from its newest version again: a page may repeat a version but never skip one.
        start = match sequence {
            Some(sequence) => successor(format::version_row(place, sequence)),
            None => format::key_row(table::VERSIONS, place),
        };
        let latest = view.rows_under(&format::key_row(table::VERSIONS, place), 1)?;
        if latest.first().is_some_and(|(row, _)| row.as_ref() < start.as_slice()) {
            met = key.as_bytes().to_vec();
        }
    }
    let walk = Walk { table: table::VERSIONS, shelf, list, start, rows: Rows::All };
    walk.run(view, &mut |_, _| Ok(true), &mut |row, value| {
        let (key, _) = format::split_row(row)?;
        let latest = met != key;
        if latest {
            met = key.to_vec();
        }
        Ok((format::listed_version(value)?, latest))
    })
}

/// Uploads in progress.
pub(crate) fn uploads(view: View<'_>, shelf: Shelf, list: &ListRange, marker: Option<UploadId>) -> Result<Page<Upload>, KvError> {
    let mut start = start(table::UPLOADS_ORDERED, shelf, list);
    if let Some((key, marker)) = marked_key(list).zip(marker) {
        let place = Place { shelf, key: &key };
        // An upload that ended since the last page has no place any more: its key is listed from the first one again.
        start = match view.upload(place, marker)? {
            Some(upload) => successor(format::ordered_upload_row(place, upload.initiated, marker)),
            None => format::key_row(table::UPLOADS_ORDERED, place),
        };
    }
    let walk = Walk { table: table::UPLOADS_ORDERED, shelf, list, start, rows: Rows::All };
    let (ids, more) = walk.run(view, &mut |_, _| Ok(true), &mut |row, _| {
        let (_, rest) = format::split_row(row)?;
        let id = rest.split_first_chunk::<8>().and_then(|(_, id)| id.try_into().ok());
        id.map(UploadId::from_bytes).ok_or_else(|| KvError::Corrupt { detail: "a short row of an upload".into() })
    })?;
    let items = ids.into_iter().map(|item| match item {
        ListItem::Prefix { prefix } => Ok(ListItem::Prefix { prefix }),
        ListItem::Entry { key, value } => match view.upload(Place { shelf, key: &key }, value)? {
            Some(value) => Ok(ListItem::Entry { key, value }),
            None => Err(KvError::Corrupt { detail: format!("upload {value} has an order but no row") }),
        },
    });
    Ok((items.collect::<Result<_, _>>()?, more))
}

/// Something told by a row and its value.
type OfRow<'a, T> = dyn FnMut(&[u8], &[u8]) -> Result<T, KvError> + 'a;

/// Which rows of a key make items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    FirstOfKey,
    All,
}

/// What the rows that follow may be skipped for.
enum Passed {
    Nothing,
    Key(Vec<u8>),
    Prefix(Vec<u8>),
}

/// A scan over the part of a shelf's table that a listing asks for.
struct Walk<'a> {
    table: u8,
    shelf: Shelf,
    list: &'a ListRange,
    start: Vec<u8>,
    rows: Rows,
}

impl Walk<'_> {
    /// Collects a page. `shows` tells whether a row is visible at all, `read` makes an entry of it.
    fn run<T>(&self, view: View<'_>, shows: &mut OfRow<'_, bool>, read: &mut OfRow<'_, T>) -> Result<Page<T>, KvError> {
        let end = Prefixed::end_of(&self.under(&self.list.prefix));
        let limit = usize::try_from(self.list.limit).unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let (mut more, mut failure, mut passed) = (false, None, Passed::Nothing);
        // No key holds a zero byte, but every row has one after its key, where a prefix with one would match it.
        if self.start < end && !self.list.prefix.contains(&0) {
            view.0.scan(&self.start, &end, &mut |row, value| {
                self.visit(row, value, &mut passed, shows, &mut |item| {
                    if items.len() == limit {
                        more = true;
                        return Ok(Step::Stop);
                    }
                    items.push(match item {
                        Found::Prefix(prefix) => ListItem::Prefix { prefix: Bytes::copy_from_slice(prefix) },
                        Found::Row(key) => ListItem::Entry { key: format::key_of(key)?, value: read(row, value)? },
                    });
                    Ok(Step::Next)
                })
                .unwrap_or_else(|error| {
                    failure = Some(error);
                    Step::Stop
                })
            })?;
        }
        failure.map_or(Ok((items, more)), Err)
    }

    fn visit(
        &self,
        row: &[u8],
        value: &[u8],
        passed: &mut Passed,
        shows: &mut OfRow<'_, bool>,
        emit: &mut dyn FnMut(Found<'_>) -> Result<Step, KvError>,
    ) -> Result<Step, KvError> {
        let (key, _) = format::split_row(row)?;
        // Seek only when the next row really is one to skip: most keys have one version, and a step is cheaper than a seek.
        match passed {
            Passed::Key(last) if last == key => return Ok(Step::Seek(self.past_key(key))),
            Passed::Prefix(last) if key.starts_with(last) => return Ok(Step::Seek(Prefixed::end_of(&self.under(last)))),
            Passed::Nothing | Passed::Key(_) | Passed::Prefix(_) => {}
        }
        let shown = shows(row, value)?;
        match fold(key, &self.list.prefix, &self.list.delimiter) {
            Some(prefix) if shown => {
                *passed = Passed::Prefix(prefix.to_vec());
                emit(Found::Prefix(prefix))
            }
            _ => {
                if self.rows == Rows::FirstOfKey {
                    *passed = Passed::Key(key.to_vec());
                }
                if shown { emit(Found::Row(key)) } else { Ok(Step::Next) }
            }
        }
    }

    /// What the rows of all keys with `prefix` begin with.
    fn under(&self, prefix: &[u8]) -> Vec<u8> {
        under(self.table, self.shelf, prefix)
    }

    fn past_key(&self, key: &[u8]) -> Vec<u8> {
        past_key(self.table, self.shelf, key)
    }
}

/// What a row makes.
enum Found<'a> {
    Prefix(&'a [u8]),
    Row(&'a [u8]),
}

fn under(table: u8, shelf: Shelf, prefix: &[u8]) -> Vec<u8> {
    [format::shelf_row(table, shelf).as_slice(), prefix].concat()
}

/// Above every row of `key`, at or below those of every greater key: after the key's zero byte comes its first row, after a
/// one comes at the earliest a key that continues this one.
fn past_key(table: u8, shelf: Shelf, key: &[u8]) -> Vec<u8> {
    let mut row = under(table, shelf, key);
    row.push(1);
    row
}

/// The first row after this one.
fn successor(mut row: Vec<u8>) -> Vec<u8> {
    row.push(0);
    row
}

/// The common prefix that `key` folds into: up to and with the first delimiter after the listing's prefix.
fn fold<'a>(key: &'a [u8], prefix: &[u8], delimiter: &[u8]) -> Option<&'a [u8]> {
    let rest = key.strip_prefix(prefix)?;
    if delimiter.is_empty() {
        return None;
    }
    let at = rest.windows(delimiter.len()).position(|window| window == delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// `after`, up to its first zero byte. No key holds one, so the keys after `a\0b` are those after `a`.
fn after(list: &ListRange) -> &[u8] {
    let end = list.after.iter().position(|byte| *byte == 0).unwrap_or(list.after.len());
    &list.after[..end]
}

/// The first row that a listing without a version or upload marker may show.
fn start(table: u8, shelf: Shelf, list: &ListRange) -> Vec<u8> {
    let first = under(table, shelf, &list.prefix);
    if list.after.is_empty() {
        return first;
    }
    let after = after(list);
    let resume = match fold(after, &list.prefix, &list.delimiter) {
        Some(prefix) => Prefixed::end_of(&under(table, shelf, prefix)),
        None => past_key(table, shelf, after),
    };
    first.max(resume)
}

/// The key that a version or upload marker belongs to; `None` when it is not listed one by one, and so has no such place.
fn marked_key(list: &ListRange) -> Option<ObjectKey> {
    let key = ObjectKey::from_bytes(list.after.clone()).ok()?;
    let alone = key.as_bytes().starts_with(&list.prefix) && fold(key.as_bytes(), &list.prefix, &list.delimiter).is_none();
    alone.then_some(key)
}
