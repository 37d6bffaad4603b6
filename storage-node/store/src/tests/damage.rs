//! Damage of every kind is detected, and never taken for absence.

use std::sync::Arc;

use placement_env::sim::FaultKind;
use placement_types::{OpenMode, Timestamp};
use proptest::prelude::*;
use storage_node_kv::{Durability, Kv, WriteBatch};

use super::machine::*;
use crate::format::{HEADER_BYTES, Header, RecordKey, hash};
use crate::position::Position;
use crate::scan::Scan;
use crate::{Disk, DiskState, ReadError, WriteError};

async fn three_shards() -> (Machine, Disk) {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=3, &[6000, 5000]).await;
    (machine, disk)
}

/// Where the record with this unit begins.
fn record_of(machine: &Machine, unit: &[u8]) -> u64 {
    machine.find(0, unit)[0] - HEADER_BYTES as u64
}

#[tokio::test]
async fn a_flipped_bit_in_a_units_data_or_header_is_corruption_of_that_unit() {
    for offset in [0, 5, 30, 60, 75, 90, 150, 160, 160 + 5999] {
        let (machine, disk) = three_shards().await;
        let at = record_of(&machine, &units(2, &[6000])[0]);
        machine.fs.flip_bit(machine.segment_path(0), at + offset, 4);
        for disk in [disk.clone(), reopened(&machine, disk, false).await] {
            assert!(matches!(disk.read_units(shard(2), 0, 2).await, Err(ReadError::Corrupt { unit: 0, .. })), "{offset}");
            assert_eq!(disk.read_units(shard(2), 1, 1).await.unwrap(), units(2, &[6000, 5000])[1..]);
            assert!(matches!(disk.verify_shard(shard(2)).await, Err(ReadError::Corrupt { unit: 0, .. })));
            assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])));
            assert_eq!(get(&disk, shard(3)).await, Some(units(3, &[6000, 5000])));
        }
    }
}

#[tokio::test]
async fn a_damaged_unit_of_a_durable_shard_is_still_corrupt_after_an_index_rebuild() {
    for offset in [5, 90, 160] {
        let (machine, disk) = three_shards().await;
        let at = record_of(&machine, &units(2, &[6000])[0]);
        machine.fs.flip_bit(machine.segment_path(0), at + offset, 4);
        let disk = reopened(&machine, disk, true).await;
        assert!(matches!(disk.read_units(shard(2), 0, 1).await, Err(ReadError::Corrupt { unit: 0, .. })), "{offset}");
        assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])));
        assert_eq!(get(&disk, shard(3)).await, Some(units(3, &[6000, 5000])));
    }
}

#[tokio::test]
async fn a_damaged_seal_is_found_by_verification_though_the_units_read() {
    let (machine, disk) = three_shards().await;
    let at = record_of(&machine, &units(2, &[6000, 5000])[1]);
    // Behind header and data comes the seal's table.
    machine.fs.flip_bit(machine.segment_path(0), at + 160 + 5000 + 20, 1);
    assert_eq!(disk.read_units(shard(2), 0, 2).await.unwrap(), units(2, &[6000, 5000]));
    assert!(matches!(disk.verify_shard(shard(2)).await, Err(ReadError::CorruptSeal { .. })));
    assert_eq!(get(&disk, shard(3)).await, Some(units(3, &[6000, 5000])));
}

#[tokio::test]
async fn a_corrupt_shard_is_repaired_by_deleting_and_writing_it_again() {
    let (machine, disk) = three_shards().await;
    let at = record_of(&machine, &units(2, &[6000])[0]);
    machine.fs.flip_bit(machine.segment_path(0), at + 200, 4);
    disk.delete_shards(vec![shard(2)]).await.unwrap();
    put(&disk, shard(2), &units(2, &[6000, 5000])).await.unwrap();
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[6000, 5000])));
    let disk = reopened(&machine, disk, true).await;
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[6000, 5000])));
}

#[tokio::test]
async fn another_shards_valid_record_in_the_place_is_corruption() {
    let (machine, disk) = three_shards().await;
    let (first, second) = (record_of(&machine, &units(1, &[6000])[0]), record_of(&machine, &units(2, &[6000])[0]));
    let mut record = vec![0; HEADER_BYTES + 6000];
    machine.env.fs.open(&machine.segment_path(0), OpenMode::Read).unwrap().read_exact_at(&mut record, second).unwrap();
    machine.overwrite(0, first, &record);
    assert!(matches!(disk.read_units(shard(1), 0, 1).await, Err(ReadError::Corrupt { unit: 0, .. })));
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[6000, 5000])));
    let disk = reopened(&machine, disk, true).await;
    assert!(matches!(disk.read_units(shard(1), 0, 1).await, Err(ReadError::Corrupt { unit: 0, .. })));
}

#[tokio::test]
async fn a_lost_or_shortened_segment_is_corruption_not_absence() {
    let (machine, disk) = three_shards().await;
    disk.close().await.unwrap();
    machine.env.fs.remove_file(&machine.segment_path(0)).unwrap();
    let disk = machine.open().await;
    assert!(matches!(disk.read_units(shard(1), 0, 1).await, Err(ReadError::Corrupt { .. })));
    put(&disk, shard(9), &units(9, &[10])).await.unwrap();
    assert!(machine.env.fs.metadata(&machine.segment_path(1)).unwrap().is_some(), "the number is not used again");
    disk.delete_shards(vec![shard(1), shard(2), shard(3)]).await.unwrap();
    assert_eq!(get(&disk, shard(1)).await, None);
}

#[tokio::test]
async fn a_corrupt_index_is_rebuilt_and_deleted_shards_stay_deleted() {
    for corrupt in 0..5 {
        let (machine, disk) = three_shards().await;
        disk.delete_shards(vec![shard(2)]).await.unwrap();
        disk.close().await.unwrap();
        let garbage = |key: &[u8]| {
            let mut batch = WriteBatch::new();
            batch.put(key.to_vec(), "garbage");
            machine.kv.lock().write(&batch, Durability::Synced).unwrap();
        };
        match corrupt {
            0 => *machine.corrupt_opens.lock() = 1,
            1 => garbage(&[b"s".as_slice(), &shard(1).to_bytes()].concat()),
            2 => garbage(b"mcheckpoint"),
            3 => garbage(b"s-not-a-shard-id"),
            _ => machine.lose_index(),
        }
        let disk = machine.open().await;
        assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])), "case {corrupt}");
        assert_eq!(get(&disk, shard(2)).await, None);
        assert_eq!(get(&disk, shard(3)).await, Some(units(3, &[6000, 5000])));
        assert_eq!(disk.usage().await.unwrap().shards, 2);
    }
}

#[tokio::test]
async fn an_index_that_fails_kills_the_disk_and_is_not_read_as_empty() {
    let (machine, disk) = three_shards().await;
    machine.kv.lock().fail();
    assert!(matches!(disk.read_units(shard(1), 0, 1).await, Err(ReadError::Index { .. })));
    assert!(matches!(disk.state(), DiskState::Dead { .. }));
    assert!(matches!(put(&disk, shard(9), &units(9, &[10])).await, Err(WriteError::Dead { .. })));
}

#[tokio::test]
async fn a_failed_fsync_kills_the_disk_for_good() {
    let (machine, disk) = three_shards().await;
    machine.fs.fail_nth_sync("/disk/segments", 1);
    assert!(matches!(put(&disk, shard(4), &units(4, &[10])).await, Err(WriteError::Dead { .. })));
    // The next fsync would succeed: nobody may ask for it.
    let before = machine.fs.operations();
    assert!(matches!(put(&disk, shard(5), &units(5, &[10])).await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.delete_shards(vec![shard(1)]).await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.checkpoint().await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.compact_once().await, Err(WriteError::Dead { .. })));
    assert_eq!(machine.fs.operations(), before, "a dead disk is not touched");
    assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])), "reads may be tried");
    machine.crash(disk, 0).await;
    let disk = machine.open().await;
    assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])));
    assert_eq!(get(&disk, shard(5)).await, None);
}

#[tokio::test]
async fn nobody_is_acknowledged_by_another_ones_failed_fsync() {
    let (machine, disk) = three_shards().await;
    machine.fs.fail_nth_sync("/disk/segments", 1);
    let content = units(4, &[10]);
    let (first, retry) = tokio::join!(put(&disk, shard(4), &content), put(&disk, shard(4), &content));
    assert!(matches!((first, retry), (Err(WriteError::Dead { .. }), Err(WriteError::Dead { .. }))));
    let (machine, disk) = three_shards().await;
    machine.fs.fail_nth_sync("/disk/segments", 1);
    let (first, retry) = tokio::join!(disk.delete_shards(vec![shard(1)]), disk.delete_shards(vec![shard(1)]));
    assert!(matches!((first, retry), (Err(WriteError::Dead { .. }), Err(WriteError::Dead { .. }))));
}

#[tokio::test]
async fn a_failed_write_kills_the_disk() {
    let (machine, disk) = three_shards().await;
    machine.fs.fail_all("/disk/segments", FaultKind::Write);
    assert!(matches!(put(&disk, shard(4), &units(4, &[10])).await, Err(WriteError::Dead { .. })));
    machine.fs.clear_faults();
    assert!(matches!(put(&disk, shard(4), &units(4, &[10])).await, Err(WriteError::Dead { .. })));
}

#[tokio::test]
async fn a_file_system_that_became_read_only_is_still_read() {
    let (machine, disk) = three_shards().await;
    machine.fs.set_read_only("/disk");
    assert!(matches!(put(&disk, shard(4), &units(4, &[10])).await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.delete_shards(vec![shard(1)]).await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.checkpoint().await, Err(WriteError::Dead { .. })));
    assert!(matches!(disk.usage().await.unwrap().state, DiskState::ReadOnly { .. }), "none of this killed it");
    assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])));
    machine.fs.clear_faults();
    assert!(put(&disk, shard(4), &units(4, &[10])).await.is_err(), "nobody knows what it did meanwhile");
    machine.crash(disk, 0).await;
    let disk = machine.open().await;
    put(&disk, shard(4), &units(4, &[10])).await.unwrap();
}

#[tokio::test]
async fn a_failed_read_is_the_disks_error_not_the_shards() {
    let (machine, disk) = three_shards().await;
    machine.fs.fail_all("/disk/segments", FaultKind::Read);
    assert!(matches!(disk.read_units(shard(1), 0, 1).await, Err(ReadError::Io { .. })));
    machine.fs.clear_faults();
    assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000, 5000])));
}

#[tokio::test]
async fn a_tail_torn_at_any_sector_is_dropped_whole() {
    let mut kept = 0;
    for seed in 0..40 {
        let machine = Machine::new(seed).await;
        let disk = machine.open().await;
        put(&disk, shard(1), &units(1, &[6000])).await.unwrap();
        // Written, and the sync that would acknowledge it never comes.
        machine.fs.halt_after(3);
        put(&disk, shard(2), &units(2, &[3000, 70_000])).await.unwrap_err();
        machine.crash(disk, 0).await;
        let disk = machine.open().await;
        assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[6000])));
        let found = get(&disk, shard(2)).await;
        assert!(found.is_none() || found == Some(units(2, &[3000, 70_000])), "seed {seed}");
        kept += usize::from(found.is_some());
        put(&disk, shard(3), &units(3, &[6000])).await.unwrap();
        assert_eq!(get(&disk, shard(3)).await, Some(units(3, &[6000])));
    }
    assert!(kept < 40, "some tails were torn");
}

#[tokio::test]
async fn foreign_files_among_the_segments_are_ignored() {
    let (machine, disk) = three_shards().await;
    disk.close().await.unwrap();
    let fs = &machine.env.fs;
    fs.create_dir_all("/disk/segments/00000007.seg".as_ref()).unwrap();
    for name in ["notes.txt", "00000000.seg~", "1.seg", "a\nb.seg"] {
        fs.open(&path().join("segments").join(name), OpenMode::CreateNew).unwrap();
    }
    let disk = reopened(&machine, machine.open().await, true).await;
    assert_eq!(disk.usage().await.unwrap().shards, 3);
}

#[tokio::test]
async fn what_clients_store_is_never_read_as_a_record() {
    // A client who knows the format, but not the disk's key, stores records as an object.
    let machine = Machine::new(1).await;
    let foreign = RecordKey::new(&crate::DiskIdentity { disk: placement_types::DiskId::from_u128(1234), ..IDENTITY });
    let mut object = vec![0; 64 << 10];
    for (block, bytes) in (0..).zip(object.chunks_mut(4096)) {
        // The data begins behind a header: the client aligns for that.
        let at = Position { segment: 0, block };
        let header = Header::delete(at, at, Timestamp::from_millis(0), &[]).to_bytes(&foreign);
        bytes[4096 - HEADER_BYTES..].copy_from_slice(&header);
    }
    let disk = machine.open().await;
    put(&disk, shard(1), &[object.clone().into()]).await.unwrap();
    put(&disk, shard(2), &units(2, &[10])).await.unwrap();
    // Even when the real header is gone and the scan looks through the data.
    machine.fs.flip_bit(machine.segment_path(0), 10, 0);
    disk.close().await.unwrap();
    machine.lose_index();
    let disk = machine.open().await;
    assert_eq!(disk.usage().await.unwrap().shards, 1);
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[10])));
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    // A header whose checksum is right and whose fields are anything.
    (prop::collection::vec(any::<u8>(), HEADER_BYTES - 16), any::<bool>()).prop_map(|(mut fields, plausible)| {
        if plausible {
            fields[..7].copy_from_slice(b"DZRC\0\x01\x01");
            fields[46..48].copy_from_slice(&[4, 2]);
            fields[56..64].copy_from_slice(&[0; 8]);
        }
        let key = blake3::derive_key(
            "dozo storage-node-store record header v1",
            &[IDENTITY.cluster.to_bytes(), IDENTITY.disk.to_bytes()].concat(),
        );
        let checksum = blake3::keyed_hash(&key, &fields);
        fields.extend(&checksum.as_bytes()[..16]);
        fields
    })
}

proptest! {
    #[test]
    fn hostile_headers_are_refused_or_within_limits(bytes in header()) {
        let key = RecordKey::new(&IDENTITY);
        if let Ok(header) = Header::read(&bytes, &key, Position::START) {
            prop_assert!(header.data_bytes as usize <= crate::UNIT_BYTES_MAX);
            prop_assert!(header.table_bytes <= crate::limits::TABLE_BYTES_MAX);
            prop_assert_eq!(&header.to_bytes(&key)[..], &bytes[..]);
        }
    }

    #[test]
    fn a_scan_ends_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..20_000), header in header()) {
        let (env, _) = placement_env::sim::env(1);
        let file = env.fs.open("/file".as_ref(), OpenMode::CreateNew).unwrap();
        file.write_at(&bytes, 0).unwrap();
        file.write_at(&header, 0).unwrap();
        let file: Arc<dyn placement_types::File> = file;
        let key = RecordKey::new(&IDENTITY);
        let mut scan = Scan::new(&file, &key, Position::START).unwrap();
        let mut records = 0;
        while let Some(found) = scan.next().unwrap() {
            records += 1;
            prop_assert_eq!(crate::scan::read_seal_table(&file, &found).unwrap(), None);
            prop_assert_eq!(crate::scan::read_delete_table(&file, &found).unwrap(), None);
        }
        prop_assert!(records <= 6);
    }
}

#[test]
fn a_record_header_has_the_documented_layout() {
    let key = RecordKey::new(&IDENTITY);
    let at = Position { segment: 3, block: 9 };
    let header = Header::delete(at, Position { segment: 2, block: 1 }, Timestamp::from_millis(7), b"table");
    let bytes = header.to_bytes(&key);
    assert_eq!(bytes.len(), 160);
    assert_eq!(bytes[..7], *b"DZRC\0\x01\x03");
    assert_eq!(bytes[48..56], 7_u64.to_be_bytes());
    assert_eq!(bytes[56..72], [0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 1]);
    assert_eq!(bytes[72..80], [0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(bytes[112..144], hash(b"table"));
    assert_eq!(Header::read(&bytes, &key, at), Ok(header));
    assert!(Header::read(&bytes, &key, Position { segment: 3, block: 8 }).is_err(), "the place is part of it");
    for bit in 0..160 * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::read(&damaged, &key, at).is_err(), "bit {bit}");
    }
}
