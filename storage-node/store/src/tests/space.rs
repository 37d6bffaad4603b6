//! Full disks, freed space, compaction.

use std::ops::Range;

use placement_types::Profile;

use super::machine::*;
use crate::writer::{Purpose, Stream};
use crate::{Disk, DiskState, ReadError, ShardWriter, WriteError};

/// Writes shards of 500 KB until the disk is full; returns how many.
async fn fill(disk: &Disk) -> u128 {
    for id in 0.. {
        match put(disk, shard(id), &units(id as u64, &[500_000])).await {
            Ok(()) => assert!(id < 200, "the disk is smaller"),
            Err(WriteError::Full { .. }) => return id,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the disk is not endless")
}

/// A disk on which shards of these sizes were stored.
async fn with_shards(ids: Range<u128>, sizes: &[usize]) -> (Machine, Disk) {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    put_all(&disk, ids, sizes).await;
    (machine, disk)
}

/// A disk with the shards 0 to 5, of which 0 and 1 were deleted: its first segment is worth a compaction.
async fn with_dead_space() -> (Machine, Disk) {
    let (machine, disk) = with_shards(0..6, &[500_000]).await;
    disk.delete_shards(vec![shard(0), shard(1)]).await.unwrap();
    (machine, disk)
}

#[tokio::test]
async fn a_full_disk_refuses_shards_reads_and_deletes_and_recovers() {
    let machine = Machine::new(1).await;
    machine.fs.set_capacity(20 << 20);
    let disk = machine.open().await;
    let count = fill(&disk).await;
    assert!(count > 10);
    assert_eq!(disk.state(), DiskState::Full);
    assert_eq!(get(&disk, shard(0)).await, Some(units(0, &[500_000])));
    assert_eq!(disk.usage().await.unwrap().state, DiskState::Full);
    disk.delete_shards((0..count).map(shard).collect()).await.unwrap();
    while disk.compact_once().await.unwrap().is_some() {}
    let usage = disk.usage().await.unwrap();
    assert_eq!((usage.state, usage.shards, usage.live_bytes), (DiskState::Good, 0, 0));
    assert!(fill(&disk).await > 10);
}

#[tokio::test]
async fn deletes_work_when_not_one_byte_is_free() {
    let machine = Machine::new(1).await;
    machine.fs.set_capacity(20 << 20);
    let disk = machine.open().await;
    let count = fill(&disk).await;
    // Somebody else took the rest.
    machine.fs.set_capacity(0);
    for id in 0..count {
        disk.delete_shards(vec![shard(id)]).await.unwrap();
        assert_eq!(get(&disk, shard(id)).await, None);
    }
    disk.close().await.unwrap();
    let disk = machine.open().await;
    assert_eq!(disk.usage().await.unwrap().shards, 0);
    assert!(matches!(put(&disk, shard(0), &units(0, &[500_000])).await, Err(WriteError::Full { .. })));
    machine.fs.set_capacity(20 << 20);
    put(&disk, shard(0), &units(0, &[500_000])).await.unwrap();
    assert_eq!(disk.state(), DiskState::Good);
}

#[tokio::test]
async fn deleting_gives_the_space_back_without_compaction() {
    let (machine, disk) = with_shards(0..20, &[500_000]).await;
    let free = || machine.env.fs.space(path()).unwrap().available_bytes;
    let before = free();
    disk.delete_shards((0..10).map(shard).collect()).await.unwrap();
    tokio::task::yield_now().await;
    assert!(free() > before + 4_900_000);
    check_all(&disk, 10..20, &[500_000]).await;
}

#[tokio::test]
async fn compaction_moves_what_lives_and_removes_the_segment() {
    let (machine, disk) = with_shards(0..20, &[500_000, 100]).await;
    let before = disk.usage().await.unwrap();
    disk.delete_shards((0..20).filter(|id| id % 3 > 0).map(shard).collect()).await.unwrap();
    let summary = disk.stat(shard(0)).await.unwrap();
    let mut moved = 0;
    while let Some(run) = disk.compact_once().await.unwrap() {
        assert_eq!(run.stuck_shards, 0);
        moved += run.moved_shards;
    }
    let after = disk.usage().await.unwrap();
    assert!(moved > 0 && after.segments < before.segments / 2, "{before:?} {after:?}");
    assert_eq!(disk.stat(shard(0)).await.unwrap(), summary, "owner and time move along");
    let check = async |disk: &Disk| {
        for id in 0..20 {
            let expected = (id % 3 == 0).then(|| units(id as u64, &[500_000, 100]));
            assert_eq!(get(disk, shard(id)).await, expected);
        }
    };
    check(&disk).await;
    check(&reopened(&machine, disk, true).await).await;
}

#[tokio::test]
async fn tombstones_outlive_their_segment_as_long_as_their_victims_do() {
    // Segment 0 stays mostly alive; its shards 0 and 3 are deleted by tombstones in segment 1, which then dies.
    let (machine, disk) = with_shards(0..3, &[500_000]).await;
    put_all(&disk, [3], &[200_000]).await;
    put_all(&disk, 10..13, &[500_000]).await;
    // Holes are not given back here, so that the victim's records stay in segment 0.
    machine.fs.fail_all(machine.segment_path(0), placement_env::sim::FaultKind::Write);
    disk.delete_shards(vec![shard(0), shard(3)]).await.unwrap();
    disk.delete_shards((10..13).map(shard).collect()).await.unwrap();
    tokio::task::yield_now().await;
    machine.fs.clear_faults();
    put_all(&disk, 20..26, &[500_000]).await;
    // Written anew, under the id of a victim, before its tombstone is copied behind it.
    put(&disk, shard(3), &units(33, &[700])).await.unwrap();
    while disk.compact_once().await.unwrap().is_some() {}
    assert!(machine.env.fs.metadata(&machine.segment_path(0)).unwrap().is_some());
    assert!(machine.env.fs.metadata(&machine.segment_path(1)).unwrap().is_none());
    assert!(!machine.find(0, &units(0, &[500_000])[0][..64]).is_empty(), "the victim's bytes are still there");
    disk.close().await.unwrap();
    machine.lose_index();
    let disk = machine.open().await;
    assert_eq!(get(&disk, shard(0)).await, None);
    assert_eq!(get(&disk, shard(3)).await, Some(units(33, &[700])));
    check_all(&disk, [1], &[500_000]).await;
}

#[tokio::test]
async fn a_move_that_a_delete_overtook_does_not_bring_the_shard_back() {
    let (machine, disk) = with_shards(1..3, &[9000]).await;
    let seal = |id| disk.handle.core.index.get(shard(id)).unwrap().unwrap().seal;
    let mover = |id| {
        let purpose = Purpose::Move { from: seal(id) };
        ShardWriter::new(disk.handle.clone(), Stream::new(shard(id), OWNER, Profile::SINGLE, machine.env.now(), purpose))
    };
    let (mut first, mut second) = (mover(1), mover(2));
    disk.delete_shards(vec![shard(1), shard(2)]).await.unwrap();
    put(&disk, shard(2), &units(22, &[50])).await.unwrap();
    first.append(units(1, &[9000]).remove(0)).await.unwrap();
    second.append(units(2, &[9000]).remove(0)).await.unwrap();
    first.finish().await.unwrap();
    second.finish().await.unwrap();
    let check = async |disk: &Disk| {
        assert_eq!((get(disk, shard(1)).await, get(disk, shard(2)).await), (None, Some(units(22, &[50]))));
        assert_eq!(disk.usage().await.unwrap().shards, 1);
    };
    check(&disk).await;
    check(&reopened(&machine, disk, true).await).await;
}

#[tokio::test]
async fn a_shard_that_is_being_written_keeps_its_segments() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    let content = units(1, &[500_000; 6]);
    let mut slow = writer(&disk, shard(1));
    for (id, unit) in (10..).zip(&content) {
        slow.append(unit.clone()).await.unwrap();
        put(&disk, shard(id), &units(id as u64, &[600_000])).await.unwrap();
    }
    disk.delete_shards((10..16).map(shard).collect()).await.unwrap();
    while disk.compact_once().await.unwrap().is_some() {}
    slow.finish().await.unwrap();
    assert_eq!(get(&disk, shard(1)).await, Some(content));
}

#[tokio::test]
async fn a_shard_that_cannot_be_read_keeps_its_segment() {
    let (machine, disk) = with_dead_space().await;
    let at = machine.find(0, &units(2, &[500_000])[0][..64])[0];
    machine.fs.flip_bit(machine.segment_path(0), at + 1000, 1);
    let run = disk.compact_once().await.unwrap().unwrap();
    assert_eq!((run.segment, run.stuck_shards, run.freed_bytes), (0, 1, 0));
    assert_eq!(disk.compact_once().await.unwrap(), None, "it is not tried again and again");
    assert!(matches!(disk.read_units(shard(2), 0, 1).await, Err(ReadError::Corrupt { .. })));
    disk.delete_shards(vec![shard(2)]).await.unwrap();
    assert_eq!(disk.compact_once().await.unwrap().unwrap().segment, 0);
    assert!(machine.env.fs.metadata(&machine.segment_path(0)).unwrap().is_none());
}

#[tokio::test]
async fn a_segment_with_an_unreadable_header_is_not_removed_under_a_live_shard() {
    let (machine, disk) = with_dead_space().await;
    let at = machine.find(0, &units(2, &[500_000])[0][..64])[0];
    // The scan cannot even tell that a record of shard 2 is here.
    machine.fs.flip_bit(machine.segment_path(0), at - 100, 1);
    assert_eq!(disk.compact_once().await.unwrap().unwrap().freed_bytes, 0);
    assert!(matches!(disk.read_units(shard(2), 0, 1).await, Err(ReadError::Corrupt { .. })));
}

#[tokio::test]
async fn reads_deletes_and_writes_go_on_during_compaction() {
    let (machine, disk) = with_shards(0..12, &[300_000, 9]).await;
    disk.delete_shards((0..12).filter(|id| id % 4 > 0).map(shard).collect()).await.unwrap();
    let compacting = async { while disk.compact_once().await.unwrap().is_some() {} };
    let reading = async {
        for _ in 0..50 {
            for id in [0, 8] {
                assert_eq!(get(&disk, shard(id)).await, Some(units(id as u64, &[300_000, 9])));
                tokio::task::yield_now().await;
            }
        }
    };
    let changing = async {
        tokio::task::yield_now().await;
        disk.delete_shards(vec![shard(4)]).await.unwrap();
        put(&disk, shard(4), &units(44, &[5000])).await.unwrap();
    };
    tokio::join!(compacting, reading, changing);
    assert_eq!(get(&disk, shard(4)).await, Some(units(44, &[5000])));
    disk.close().await.unwrap();
    machine.lose_index();
    assert_eq!(get(&machine.open().await, shard(4)).await, Some(units(44, &[5000])));
}

#[tokio::test]
async fn a_compaction_without_room_keeps_the_old_data() {
    let (machine, disk) = with_dead_space().await;
    tokio::task::yield_now().await;
    machine.fs.set_capacity(0);
    // Two more fit into the active segment's end, then nothing does.
    let mut result = disk.compact_once().await;
    for id in 20..24 {
        let _ = put(&disk, shard(id), &units(id as u64, &[500_000])).await;
        result = result.and(disk.compact_once().await);
    }
    if let Err(error) = result {
        assert!(matches!(error, WriteError::Full { .. }), "{error}");
    }
    check_all(&disk, 2..6, &[500_000]).await;
}
