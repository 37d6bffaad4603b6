//! Listings against a naive filter and fold over all keys, at every page size, resumed at every item.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use placement_types::{ObjectKey, UploadId};
use proptest::prelude::*;
use proptest::sample::select;
use storage_node_kv::{KvError, KvRead, Step};
use storage_node_proto::command::{Change, Outcome, WriteCondition};
use storage_node_proto::object::{ObjectAttributes, Upload, Version, VersionBody, VersionId, VersionSelector, Versioning};
use storage_node_proto::query::{Answer, ListItem, ListRange, Query};

use super::replica::{Replica, command, key, record, shelf, time, txn};

/// What a test puts under a key: from the oldest version, `true` for an object and `false` for a delete marker.
type Content = BTreeMap<ObjectKey, Vec<bool>>;

/// A replica with this content, and all of its versions, newest first within a key.
fn filled(content: &Content) -> (Replica, BTreeMap<ObjectKey, Vec<Version>>) {
    let mut replica = Replica::default();
    let mut all: BTreeMap<ObjectKey, Vec<Version>> = BTreeMap::new();
    let mut n = 0;
    for (key, versions) in content {
        for (at, object) in versions.iter().enumerate() {
            n += 1;
            // The oldest version is the null version, to have it in the middle of listings too.
            let versioning = if at == 0 { Versioning::Suspended } else { Versioning::Enabled };
            let (shelf, key, condition) = (shelf(), key.clone(), WriteCondition::None);
            let record = record(txn(n), "e", None);
            let (change, body) = if *object {
                let body = VersionBody::Object(record.clone());
                (Change::Put { shelf, key: key.clone(), versioning, condition, record, data: None }, body)
            } else {
                let selector = VersionSelector::Current;
                (Change::Delete { shelf, key: key.clone(), versioning, condition, selector }, VersionBody::DeleteMarker)
            };
            let id = match replica.apply(&command(n, n, change)) {
                Outcome::Written { version, .. } | Outcome::Deleted { marker: Some(version), .. } => version,
                other => panic!("unexpected {other:?}"),
            };
            all.entry(key).or_default().insert(0, Version { id, txn: txn(n), modified: time(n), body });
        }
    }
    (replica, all)
}

/// The fold of a key, written independently of the code under test.
fn folded(key: &ObjectKey, list: &ListRange) -> Option<Bytes> {
    let text = key.as_bytes();
    if list.delimiter.is_empty() {
        return None;
    }
    (list.prefix.len()..=text.len())
        .map(|end| &text[..end])
        .find(|head| head.len() >= list.prefix.len() + list.delimiter.len() && head.ends_with(&list.delimiter))
        .map(Bytes::copy_from_slice)
}

/// Filters, folds and sorts. Items come in pairs with their sort key and keep their order within it.
fn naive<T: Clone>(entries: &[(ObjectKey, T)], list: &ListRange) -> Vec<ListItem<T>> {
    let mut items: Vec<ListItem<T>> = Vec::new();
    for (key, value) in entries.iter().filter(|(key, _)| key.as_bytes().starts_with(&list.prefix)) {
        match folded(key, list) {
            Some(prefix) => {
                if !items.iter().any(|item| matches!(item, ListItem::Prefix { prefix: known } if *known == prefix)) {
                    items.push(ListItem::Prefix { prefix });
                }
            }
            None => items.push(ListItem::Entry { key: key.clone(), value: value.clone() }),
        }
    }
    items.sort_by(|a, b| a.sort_key().cmp(b.sort_key()));
    items
}

fn visible(all: &BTreeMap<ObjectKey, Vec<Version>>) -> Vec<(ObjectKey, Version)> {
    let current = all.iter().map(|(key, versions)| (key.clone(), versions[0].clone()));
    current.filter(|(_, version)| version.body != VersionBody::DeleteMarker).collect()
}

/// Compares the page of `limit` items with what `expected` has from its start on.
fn same<T: PartialEq + Debug>(page: (Vec<ListItem<T>>, bool), expected: &[ListItem<T>], limit: u32, what: &str) {
    let limit = limit as usize;
    assert_eq!(page.0.as_slice(), &expected[..limit.min(expected.len())], "{what}");
    assert_eq!(page.1, expected.len() > limit, "{what}: more");
}

fn objects(replica: &Replica, list: &ListRange) -> (Vec<ListItem<Version>>, bool) {
    match replica.ask(&Query::ListObjects { shelf: shelf(), list: list.clone() }) {
        Answer::Objects { items, more } => (items, more),
        other => panic!("unexpected {other:?}"),
    }
}

fn versions(replica: &Replica, list: &ListRange, version_marker: Option<VersionId>) -> (Vec<ListItem<(Version, bool)>>, bool) {
    match replica.ask(&Query::ListVersions { shelf: shelf(), list: list.clone(), version_marker }) {
        Answer::Versions { items, more } => (items, more),
        other => panic!("unexpected {other:?}"),
    }
}

fn uploads(replica: &Replica, list: &ListRange, upload_marker: Option<UploadId>) -> (Vec<ListItem<Upload>>, bool) {
    match replica.ask(&Query::ListUploads { shelf: shelf(), list: list.clone(), upload_marker }) {
        Answer::Uploads { items, more } => (items, more),
        other => panic!("unexpected {other:?}"),
    }
}

/// Lists with every page size, resuming after every item and after `foreign`.
fn check_objects(content: &Content, list: &ListRange, foreign: &[u8]) {
    let (replica, all) = filled(content);
    let expected = naive(&visible(&all), list);
    let resumes = std::iter::once(&b""[..]).chain(expected.iter().map(ListItem::sort_key)).chain([foreign]);
    for after in resumes {
        let rest: Vec<_> = expected.iter().filter(|item| item.sort_key() > after).cloned().collect();
        for limit in 0..=rest.len() as u32 + 1 {
            let list = ListRange { after: Bytes::copy_from_slice(after), limit, ..list.clone() };
            same(objects(&replica, &list), &rest, limit, &format!("{list:?} of {content:?}"));
        }
    }
}

fn check_versions(content: &Content, list: &ListRange, foreign: &[u8]) {
    let (replica, all) = filled(content);
    let entries: Vec<_> = all
        .iter()
        .flat_map(|(key, versions)| versions.iter().enumerate().map(|(at, version)| (key.clone(), (version.clone(), at == 0))))
        .collect();
    let expected = naive(&entries, list);
    let page = |after: &[u8], marker, rest: &[ListItem<(Version, bool)>]| {
        for limit in 0..=rest.len() as u32 + 1 {
            let list = ListRange { after: Bytes::copy_from_slice(after), limit, ..list.clone() };
            same(versions(&replica, &list, marker), rest, limit, &format!("{list:?} from {marker:?} of {content:?}"));
        }
    };
    page(b"", None, &expected);
    page(foreign, None, &expected.iter().filter(|item| item.sort_key() > foreign).cloned().collect::<Vec<_>>());
    for (at, item) in expected.iter().enumerate() {
        let marker = match item {
            ListItem::Entry { value, .. } => Some(value.0.id),
            ListItem::Prefix { .. } => None,
        };
        page(item.sort_key(), marker, &expected[at + 1..]);
    }
}

fn check_uploads(content: &Content, list: &ListRange) {
    let mut replica = Replica::default();
    let mut entries = Vec::new();
    let mut n = 0;
    for (key, starts) in content {
        let mut of_key = Vec::new();
        for (at, early) in starts.iter().enumerate() {
            n += 1;
            // Some begin at the same time, some earlier than those before them.
            let initiated = time(if *early { 5 } else { 9 });
            let id = UploadId::from_u128(1000 - at as u128);
            let upload = Upload { id, initiated, attributes: ObjectAttributes::default(), checksum: None };
            let create = Change::CreateUpload { shelf: shelf(), key: key.clone(), upload: upload.clone() };
            assert_eq!(replica.apply(&command(n, n, create)), Outcome::UploadCreated);
            of_key.push((key.clone(), upload));
        }
        of_key.sort_by_key(|(_, upload)| (upload.initiated, upload.id));
        entries.extend(of_key);
    }
    let expected = naive(&entries, list);
    for at in 0..=expected.len() {
        let last = at.checked_sub(1).map(|last| &expected[last]);
        let marker = match last {
            Some(ListItem::Entry { value, .. }) => Some(value.id),
            _ => None,
        };
        let after = Bytes::copy_from_slice(last.map_or(&b""[..], ListItem::sort_key));
        for limit in 0..=expected.len() as u32 + 1 {
            let list = ListRange { after: after.clone(), limit, ..list.clone() };
            same(uploads(&replica, &list, marker), &expected[at..], limit, &format!("{list:?} from {marker:?} of {content:?}"));
        }
    }
}

fn content(keys: &[(&str, &[bool])]) -> Content {
    keys.iter().map(|(text, versions)| (key(text), versions.to_vec())).collect()
}

fn range(prefix: &str, delimiter: &str) -> ListRange {
    ListRange {
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        delimiter: Bytes::copy_from_slice(delimiter.as_bytes()),
        ..ListRange::default()
    }
}

fn names<T>(items: &[ListItem<T>]) -> Vec<&str> {
    items.iter().map(|item| std::str::from_utf8(item.sort_key()).expect("keys are text")).collect()
}

#[test]
fn order_is_that_of_bytes_over_keys_and_prefixes_together() {
    let object: &[bool] = &[true];
    let (replica, _) =
        filled(&content(&[("foo/a", object), ("foo+1/b", object), ("foo", object), ("a/x", object), ("a.b/x", object)]));
    let (items, more) = objects(&replica, &ListRange { limit: 10, ..range("", "/") });
    assert_eq!(names(&items), ["a.b/", "a/", "foo", "foo+1/", "foo/"]);
    assert!(!more);
}

#[test]
fn a_last_prefix_that_swallows_all_remaining_keys_ends_the_listing() {
    let object: &[bool] = &[true];
    let (replica, _) = filled(&content(&[("boo/1", object), ("cquux/2", object), ("cquux/3", object), ("cquux/4", object)]));
    let page = |after: &str, limit| {
        objects(&replica, &ListRange { limit, after: Bytes::copy_from_slice(after.as_bytes()), ..range("", "/") })
    };
    let (items, more) = page("", 2);
    assert_eq!((names(&items), more), (vec!["boo/", "cquux/"], false));
    let (items, more) = page("", 1);
    assert_eq!((names(&items), more), (vec!["boo/"], true));
    let (items, more) = page("boo/", 1);
    assert_eq!((names(&items), more), (vec!["cquux/"], false));
}

#[test]
fn keys_just_after_a_folded_prefix_are_not_skipped() {
    let object: &[bool] = &[true];
    let (replica, _) =
        filled(&content(&[("1999", object), ("1999#", object), ("1999/x", object), ("19990", object), ("2000", object)]));
    let (items, _) = objects(&replica, &ListRange { limit: 10, ..range("", "/") });
    assert_eq!(names(&items), ["1999", "1999#", "1999/", "19990", "2000"]);
    let (items, _) = objects(&replica, &ListRange { limit: 10, ..range("", "9") });
    assert_eq!(names(&items), ["19", "2000"]);
}

#[test]
fn a_deleted_folder_is_gone_from_objects_but_not_from_versions() {
    let (replica, _) = filled(&content(&[("a/x", &[true, false]), ("a/y", &[false]), ("b", &[true])]));
    let list = ListRange { limit: 10, ..range("", "/") };
    assert_eq!(names(&objects(&replica, &list).0), ["b"]);
    assert_eq!(names(&versions(&replica, &list, None).0), ["a/", "b"]);
}

#[test]
fn hostile_ranges_list_what_they_say() {
    let object: &[bool] = &[true, true];
    let (replica, _) = filled(&content(&[("a", object), ("a\u{1}", object), ("b", object), ("\u{10ffff}", object)]));
    let list = |prefix: &'static [u8], delimiter: &'static [u8], after: &'static [u8]| {
        let list = ListRange {
            prefix: Bytes::from_static(prefix),
            delimiter: Bytes::from_static(delimiter),
            after: Bytes::from_static(after),
            limit: 10,
        };
        let (items, more) = objects(&replica, &list);
        assert!(!more);
        names(&items).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    // A zero byte in `after` must not land between the versions of a key.
    assert_eq!(list(b"", b"", b"a\0"), ["a\u{1}", "b", "\u{10ffff}"]);
    assert_eq!(list(b"", b"", b"a\0\xff\xff\xff\xff\xff\xff\xff\xff\xff"), ["a\u{1}", "b", "\u{10ffff}"]);
    assert_eq!(list(b"", b"", b"\0").len(), 4);
    assert_eq!(list(b"a\0", b"", b"").len(), 0);
    assert_eq!(list(b"", b"\0", b"").len(), 4);
    assert_eq!(list(b"\xff", b"", b"").len(), 0);
    assert_eq!(list(b"", b"", b"\xff\xff").len(), 0);
    assert_eq!(list(b"", b"\xff", b"b"), ["\u{10ffff}"]);
}

#[test]
fn a_version_marker_deleted_since_the_last_page_skips_nothing() {
    let (mut replica, all) = filled(&content(&[("a", &[true, true, true]), ("b", &[true])]));
    let ids: Vec<VersionId> = all[&key("a")].iter().map(|version| version.id).collect();
    let mut remove = |n, id| {
        let selector = VersionSelector::Exact(id);
        let (versioning, condition) = (Versioning::Enabled, WriteCondition::None);
        let outcome =
            replica.apply(&command(n, n, Change::Delete { shelf: shelf(), key: key("a"), versioning, condition, selector }));
        assert!(matches!(outcome, Outcome::Deleted { removed: Some(_), .. }));
        replica.clone()
    };
    let list = ListRange { limit: 10, after: Bytes::from_static(b"a"), ..ListRange::default() };
    let left = |replica: &Replica, marker| -> Vec<(VersionId, bool)> {
        let (items, _) = versions(replica, &list, Some(marker));
        items
            .into_iter()
            .filter_map(|item| match item {
                ListItem::Entry { key: found, value } => (found == key("a")).then_some((value.0.id, value.1)),
                ListItem::Prefix { .. } => None,
            })
            .collect()
    };
    let without_newest = remove(90, ids[0]);
    // The next one has become the latest, and says so.
    assert_eq!(left(&without_newest, ids[0]), [(ids[1], true), (ids[2], false)]);
    assert_eq!(ids[2], VersionId::Null);
    let without_null = remove(91, ids[2]);
    assert_eq!(left(&without_null, ids[2]), [(ids[1], true)]);
}

/// Counts the rows that scans visit.
struct Counting {
    replica: Replica,
    visits: AtomicUsize,
}

impl KvRead for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.replica.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        self.replica.scan(from, to, &mut |row, value| {
            self.visits.fetch_add(1, Ordering::Relaxed);
            visit(row, value)
        })
    }
}

#[test]
fn a_listing_skips_old_versions_and_folded_keys() {
    let (many, one): (&[bool], &[bool]) = (&[true; 300], &[true]);
    let folder: Vec<String> = (0..300).map(|n| format!("b/{n}")).collect();
    let mut keys: Vec<(&str, &[bool])> = vec![("a", many), ("c", one)];
    keys.extend(folder.iter().map(|text| (text.as_str(), one)));
    let (replica, _) = filled(&content(&keys));
    let counting = Counting { replica, visits: AtomicUsize::new(0) };
    let query = Query::ListObjects { shelf: shelf(), list: ListRange { limit: 10, ..range("", "/") } };
    let Ok(Answer::Objects { items, more: false }) = crate::answer(&counting, &query) else { panic!("it lists") };
    assert_eq!(names(&items), ["a", "b/", "c"]);
    // Two rows of the key and of the folder each: the second one shows that there is something to skip.
    assert_eq!(counting.visits.load(Ordering::Relaxed), 5);
}

fn contents() -> impl Strategy<Value = Content> {
    // Few letters, so that keys are prefixes of each other and of delimiters; bytes below and above `/`; multi-byte text.
    let letter = select(vec!["a", "b", "/", "/", "+", ".", "\u{1}", "é", "\u{10ffff}", "ab"]);
    let key =
        proptest::collection::vec(letter, 1..6).prop_filter_map("a legal key", |parts| ObjectKey::parse(&parts.concat()).ok());
    proptest::collection::btree_map(key, proptest::collection::vec(any::<bool>(), 1..4), 0..12)
}

fn ranges() -> impl Strategy<Value = ListRange> {
    let prefix = select(vec!["", "", "a", "a/", "/", "ab", "é", "a\u{1}", "zz"]);
    let delimiter = select(vec!["", "/", "/", "a", "a/", "é", "//", ".", "\u{10ffff}"]);
    (prefix, delimiter).prop_map(|(prefix, delimiter)| range(prefix, delimiter))
}

fn foreign() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(select(vec![b'a', b'b', b'/', b'+', 0, 1, 0xc3, 0xa9, 0xff]), 0..5)
}

proptest! {
    #[test]
    fn objects_list_like_a_filter(content in contents(), list in ranges(), foreign in foreign()) {
        check_objects(&content, &list, &foreign);
    }

    #[test]
    fn versions_list_like_a_filter(content in contents(), list in ranges(), foreign in foreign()) {
        check_versions(&content, &list, &foreign);
    }

    #[test]
    fn uploads_list_like_a_filter(content in contents(), list in ranges()) {
        check_uploads(&content, &list);
    }
}
