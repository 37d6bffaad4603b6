//! Work that one entry or page bounds, and the next one goes on with.

use placement_types::UploadId;
use storage_node_proto::command::{Change, Outcome, WriteCondition};
use storage_node_proto::object::{Data, ObjectAttributes, Upload, Versioning};
use storage_node_proto::query::{Answer, ListRange, Query};

use super::replica::{Replica, chunk, chunk_id, command, disk, key, record, shelf, time, txn};
use crate::limits::{FORGET_ROWS_MAX, PURGE_PARTS_MAX};

fn create_uploads(replica: &mut Replica, count: usize) {
    for n in 1..=count as u64 {
        let id = UploadId::from_u128(u128::from(n));
        let upload = Upload { id, initiated: time(n), attributes: ObjectAttributes::default(), checksum: None };
        let create = Change::CreateUpload { shelf: shelf(), key: key("k"), upload };
        assert_eq!(replica.apply(&command(n, n, create)), Outcome::UploadCreated);
    }
}

#[test]
fn a_large_purge_takes_several_entries() {
    let mut replica = Replica::default();
    create_uploads(&mut replica, PURGE_PARTS_MAX + 1);
    let mut send = |n, change| replica.apply(&command(n, n, change));
    assert_eq!(send(90_001, Change::FenceShelf { shelf: shelf() }), Outcome::Done);
    assert_eq!(send(90_002, Change::PurgeShelf { shelf: shelf() }), Outcome::NotEmpty);
    assert_eq!(send(90_003, Change::PurgeShelf { shelf: shelf() }), Outcome::Done);
    assert_eq!(send(90_004, Change::UnfenceShelf { shelf: shelf() }), Outcome::Done);
    let list = ListRange { limit: 1, ..ListRange::default() };
    let query = Query::ListUploads { shelf: shelf(), list, upload_marker: None };
    assert_eq!(replica.ask(&query), Answer::Uploads { items: vec![], more: false });
}

#[test]
fn a_large_forget_takes_several_entries_and_refuses_what_is_old_at_once() {
    let mut replica = Replica::default();
    let count = FORGET_ROWS_MAX + 1;
    create_uploads(&mut replica, count);
    let before = time(count as u64 + 1);
    let forget = command(900_001, 100_000_000, Change::Forget { before });
    assert_eq!(replica.apply(&forget), Outcome::NotEmpty);
    let late =
        command(900_002, count as u64, Change::AbortUpload { shelf: shelf(), key: key("k"), upload: UploadId::from_u128(1) });
    assert_eq!(replica.apply(&late), Outcome::TxnAborted);
    assert_eq!(replica.apply(&forget), Outcome::Done);
    let tables: Vec<u8> = replica.rows.keys().map(|row| row[0]).filter(|table| matches!(table, 0x13 | 0x15)).collect();
    assert!(tables.is_empty(), "{} rows are left", tables.len());
}

#[test]
fn a_clock_that_is_a_year_ahead_for_hours_has_no_right_command_refused() {
    let mut replica = Replica::default();
    let hour = 60 * 60 * 1000;
    let (now, year) = (400 * 24 * hour, 365 * 24 * hour);
    let put = |replica: &mut Replica, txn: u64, at: u64| {
        let upload = Upload {
            id: UploadId::from_u128(u128::from(txn)),
            initiated: time(at),
            attributes: ObjectAttributes::default(),
            checksum: None,
        };
        replica.apply(&command(txn, at, Change::CreateUpload { shelf: shelf(), key: key("k"), upload }))
    };
    let forget = |replica: &mut Replica, txn: u64, at: u64| {
        let week = 7 * 24 * hour;
        replica.apply(&command(txn, at, Change::Forget { before: time(at - week) }))
    };
    // Nothing is remembered that could be forgotten.
    assert_eq!(forget(&mut replica, 1, now + year), Outcome::Done);
    assert_eq!(put(&mut replica, 2, now - 8 * 24 * hour), Outcome::UploadCreated);
    for n in 0..14 {
        assert_eq!(forget(&mut replica, 10 + n, now + year + n * hour), Outcome::Done);
        assert_eq!(put(&mut replica, 100 + n, now + n * hour), Outcome::UploadCreated, "after {n} hours");
    }
    // What is old is refused as ever.
    assert_eq!(put(&mut replica, 200, now - 8 * 24 * hour), Outcome::TxnAborted);
}

/// A caller resumes after a time and chunk, so a page that ended between two shards of one would lose the second.
#[test]
fn a_page_of_garbage_ends_between_chunks() {
    let mut replica = Replica::default();
    let data = Data::Chunks(vec![chunk(1, 100, [1, 2, 3, 4]), chunk(2, 100, [1, 2, 3, 4])]);
    let (shelf, key) = (shelf(), key("k"));
    let put = Change::Put {
        shelf,
        key: key.clone(),
        versioning: Versioning::Unversioned,
        condition: WriteCondition::None,
        record: record(txn(1), "e", Some(&data)),
        data: Some(data),
    };
    replica.apply(&command(1, 1, put));
    for (n, id, index) in [(2, 2, 0), (3, 1, 1), (4, 1, 0)] {
        let (from, to) = (Some(disk(u64::from(index) + 1)), Some(disk(u64::from(index) + 7)));
        let (key, chunk) = (key.clone(), chunk_id(id));
        let change = Change::MoveShard { shelf, key, owner: txn(1), chunk, index, from, to };
        assert_eq!(replica.apply(&command(n, 5, change)), Outcome::Done);
    }
    let page = |after, limit| {
        let Answer::Garbage { garbage } = replica.ask(&Query::Garbage { before: time(6), after, limit }) else { panic!() };
        garbage.iter().map(|one| one.entry.chunk).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 1), [chunk_id(1), chunk_id(1)]);
    assert_eq!(page(Some((time(5), chunk_id(1))), 1), [chunk_id(2)]);
    assert_eq!(page(Some((time(5), chunk_id(2))), 1), []);
    assert_eq!(page(None, 3), [chunk_id(1), chunk_id(1), chunk_id(2)]);
}
