//! Work that one entry bounds, and the next one goes on with.

use placement_types::UploadId;
use storage_node_proto::command::{Change, Outcome};
use storage_node_proto::object::{ObjectAttributes, Upload};
use storage_node_proto::query::{Answer, ListRange, Query};

use super::replica::{Replica, command, key, shelf, time};
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
