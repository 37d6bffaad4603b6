//! Entries as bytes: hostile ones, and the same log twice.

use bytes::Bytes;
use proptest::prelude::*;
use storage_node_proto::command::{Change, Outcome, WriteCondition};
use storage_node_proto::object::{ChunkEntry, Data, DataRef, ObjectRecord, PartSummary, Versioning};
use storage_node_proto::query::{Answer, ListRange, Query};

use super::replica::{Replica, chunk, command, key, record, shelf, time, txn};
use crate::limits::PAGE_ITEMS_MAX;

fn put(record: ObjectRecord, data: Option<Data>) -> Change {
    Change::Put {
        shelf: shelf(),
        key: key("k"),
        versioning: Versioning::Unversioned,
        condition: WriteCondition::None,
        record,
        data,
    }
}

fn put_chunks(n: u64, chunks: Vec<ChunkEntry>) -> Change {
    let data = Data::Chunks(chunks);
    put(record(txn(n), "e", Some(&data)), Some(data))
}

fn refuses(change: Change) {
    let mut replica = Replica::default();
    let outcome = replica.apply(&command(1, 9_000_000, change.clone()));
    assert!(matches!(outcome, Outcome::Malformed { .. }), "{change:?} gave {outcome:?}");
    assert!(replica.rows.is_empty(), "{change:?} changed the state");
}

#[test]
fn a_manifest_that_breaks_an_invariant_changes_nothing() {
    let good = chunk(1, 100, [1, 2, 3, 4]);
    let mut replica = Replica::default();
    assert!(matches!(replica.apply(&command(1, 1, put_chunks(1, vec![good.clone()]))), Outcome::Written { .. }));

    let with = |change: &dyn Fn(&mut ChunkEntry)| {
        let mut bad = good.clone();
        change(&mut bad);
        refuses(put_chunks(1, vec![bad.clone()]));
        refuses(Change::PutPart {
            shelf: shelf(),
            key: key("k"),
            upload: placement_types::UploadId::from_u128(1),
            number: 1,
            md5: [0; 16],
            checksum: None,
            data: Some(Data::Chunks(vec![bad])),
        });
    };
    with(&|bad| bad.shards[3] = bad.shards[0]);
    with(&|bad| {
        bad.shards[0] = None;
        bad.shards[3] = None;
    });
    with(&|bad| bad.shards.truncate(3));
    with(&|bad| bad.shards.push(None));
    with(&|bad| bad.bytes = 0);
    with(&|bad| bad.bytes = 16 * 1024 * 1024 + 1);
    refuses(put_chunks(1, vec![]));
    refuses(put_chunks(1, vec![good.clone(), good.clone()]));
}

#[test]
fn a_recoding_that_could_change_a_byte_or_lack_a_shard_changes_nothing() {
    let from = chunk(1, 100, [1, 2, 3, 4]);
    let recode = |change: &dyn Fn(&mut ChunkEntry)| {
        let mut to = chunk(2, 100, [5, 6, 7, 8]);
        change(&mut to);
        Change::Recode { shelf: shelf(), key: key("k"), owner: txn(1), from: from.clone(), to }
    };
    assert_eq!(
        Replica::default().apply(&command(2, 1, recode(&|_| ()))),
        Outcome::Moved,
        "it is well formed, but nothing is there"
    );
    refuses(recode(&|to| to.hash = [8; 32]));
    refuses(recode(&|to| to.bytes = 99));
    refuses(recode(&|to| to.chunk = from.chunk));
    refuses(recode(&|to| to.shards[3] = None));
    refuses(recode(&|to| to.shards[3] = to.shards[0]));
    refuses(recode(&|to| to.shards.truncate(3)));
}

#[test]
fn a_record_that_does_not_add_up_changes_nothing() {
    let data = Data::Inline(Bytes::from_static(b"hello"));
    let good = record(txn(1), "e", Some(&data));
    refuses(put(ObjectRecord { bytes: 6, ..good.clone() }, Some(data.clone())));
    refuses(put(ObjectRecord { data: vec![], ..good.clone() }, Some(data.clone())));
    refuses(put(ObjectRecord { data: vec![DataRef { txn: txn(2), bytes: 5 }], ..good.clone() }, Some(data.clone())));
    refuses(put(good.clone(), None));
    refuses(put(record(txn(1), "e", None), Some(Data::Inline(Bytes::new()))));
    refuses(put(ObjectRecord { parts: vec![PartSummary { number: 1, bytes: 5, checksum: None }], ..good }, Some(data)));
    let long = Data::Inline(Bytes::from(vec![0; 16 * 1024 + 1]));
    refuses(put(record(txn(1), "e", Some(&long)), Some(long)));
    refuses(Change::Forget { before: time(9_000_000) });
}

#[test]
fn a_query_beyond_its_limits_is_refused() {
    let list = ListRange { limit: PAGE_ITEMS_MAX + 1, ..ListRange::default() };
    let answer = Replica::default().ask(&Query::ListObjects { shelf: shelf(), list });
    assert!(matches!(answer, Answer::Malformed { .. }));
    let answer = Replica::default().ask(&Query::Referenced { txns: vec![txn(1); 10_001] });
    assert!(matches!(answer, Answer::Malformed { .. }));
}

#[test]
fn a_corrupt_row_is_an_error_and_no_missing_key() {
    let mut replica = Replica::default();
    let data = Data::Inline(Bytes::from_static(b"hello"));
    replica.apply(&command(1, 1, put(record(txn(1), "e", Some(&data)), Some(data))));
    for row in replica.rows.keys().cloned().collect::<Vec<_>>() {
        let mut damaged = replica.clone();
        damaged.rows.insert(row.clone(), Bytes::from_static(b"\xff"));
        let query =
            Query::Version { shelf: shelf(), key: key("k"), selector: storage_node_proto::object::VersionSelector::Current };
        match row[0] {
            0x01 | 0x03 => assert!(crate::answer(&damaged, &query).is_err()),
            _ => assert!(crate::answer(&damaged, &query).is_ok()),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_apply_without_panic_and_change_nothing(bytes: Vec<u8>) {
        let mut replica = Replica::default();
        let (outcome, changes) = replica.apply_bytes(&bytes);
        let refused = matches!(Outcome::from_versioned(&outcome), Ok(Outcome::Malformed { .. }));
        prop_assert!(refused);
        prop_assert!(changes.is_empty());
    }

    /// A flipped byte may make another legal command; then it must apply as one, the same on every replica.
    #[test]
    fn a_damaged_entry_applies_the_same_everywhere(at in 0usize..300, flip in 1u8..) {
        let data = Data::Chunks(vec![chunk(1, 100, [1, 2, 3, 0])]);
        let mut entry = command(1, 1, put(record(txn(1), "e", Some(&data)), Some(data))).to_versioned().to_vec();
        let at = at % entry.len();
        entry[at] ^= flip;
        let (mut one, mut two) = (Replica::default(), Replica::default());
        let first = one.apply_bytes(&entry);
        prop_assert_eq!(&first, &two.apply_bytes(&entry));
        if matches!(Outcome::from_versioned(&first.0), Ok(Outcome::Malformed { .. })) {
            prop_assert!(first.1.is_empty());
        }
    }
}
