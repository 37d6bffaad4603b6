//! Whatever happens to a disk's files, the scrub finds it: what is bad is in quarantine until it is written again, and what
//! the index lost comes back.

use placement_env::sim::FaultKind;
use placement_types::{OpenMode, Timestamp, TxnId};
use storage_node_kv::{Durability, Kv, WriteBatch};

use super::machine::*;
use crate::format::HEADER_BYTES;
use crate::{DarkSearch, Disk, Examined, Held, Owner, ScrubState, ScrubTally, WriteError};

const SIZES: [usize; 2] = [6000, 5000];

/// Reads everything; returns what is damaged, and how much of that is news.
async fn scrub(disk: &Disk) -> (Vec<u128>, usize) {
    let (mut after, mut damaged, mut news) = (None, Vec::new(), 0);
    loop {
        let step = disk.examine_next(after).await.unwrap();
        for Examined { shard, held, news: is_news, .. } in step.examined {
            assert_ne!(held, Held::Missing);
            if held == Held::Damaged {
                damaged.push(shard.chunk.as_u128());
                news += usize::from(is_news);
            }
        }
        let Some(next) = step.next else { return (damaged, news) };
        after = Some(next);
    }
}

async fn held(disk: &Disk, ids: impl IntoIterator<Item = u128>) -> Vec<Held> {
    disk.held(ids.into_iter().map(shard).collect()).await.unwrap()
}

/// Searches all segments and takes back what is whole.
async fn search(disk: &Disk) -> (Vec<u128>, u64) {
    let mut search = DarkSearch::default();
    while !search.is_complete {
        search = disk.search_dark(search).await.unwrap();
    }
    let adopted = disk.adopt(search).await.unwrap();
    (adopted.shards.into_iter().map(|shard| shard.chunk.as_u128()).collect(), adopted.unreadable)
}

fn lose_index_row(machine: &Machine, id: u128) {
    let mut batch = WriteBatch::new();
    batch.delete([b"s".as_slice(), &shard(id).to_bytes()].concat());
    machine.kv.lock().write(&batch, Durability::Synced).unwrap();
}

/// Where the first unit's record of a shard begins.
fn record_of(machine: &Machine, id: u128) -> u64 {
    machine.find(0, &units(id as u64, &SIZES)[0])[0] - HEADER_BYTES as u64
}

#[tokio::test]
async fn a_damaged_shard_is_in_quarantine_until_it_is_written_again() {
    // In the data, in the header, in the seal's table; and a header that claims 2^63 bytes wherever a length can stand.
    let long = (1_u64 << 63).to_be_bytes();
    let cases: [(u64, &[u8]); 6] =
        [(200, b"!"), (90, b"!"), (8192 + 160 + 5000 + 20, b"!"), (68, &long), (72, &long), (76, &long)];
    for (offset, bytes) in cases {
        let machine = Machine::new(7).await;
        let disk = machine.open().await;
        put_all(&disk, 1..=3, &SIZES).await;
        let before = disk.usage().await.unwrap();
        machine.overwrite(0, record_of(&machine, 2) + offset, bytes);
        assert_eq!(held(&disk, 1..=4).await, [Held::Whole, Held::Whole, Held::Whole, Held::Missing], "{offset}: not read yet");
        assert_eq!(scrub(&disk).await, (vec![2], 1), "{offset}");
        assert_eq!(scrub(&disk).await, (vec![2], 0), "{offset}: it is known");
        let disk = reopened(&machine, disk, false).await;
        assert_eq!(held(&disk, 1..=3).await, [Held::Whole, Held::Damaged, Held::Whole], "{offset}: also after a restart");
        assert_eq!((disk.quarantined(None, 10), disk.usage().await.unwrap().quarantined), (vec![shard(2)], 1));

        put_all(&disk, [2], &SIZES).await;
        assert_eq!(held(&disk, 1..=3).await, [Held::Whole; 3], "{offset}");
        assert_eq!(scrub(&disk).await, (vec![], 0), "{offset}");
        check_all(&disk, 1..=3, &SIZES).await;
        let after = disk.usage().await.unwrap();
        assert_eq!((after.shards, after.live_bytes, after.quarantined), (3, before.live_bytes, 0), "{offset}");
        for lose_index in [false, true] {
            let disk = reopened(&machine, disk.clone(), lose_index).await;
            check_all(&disk, 1..=3, &SIZES).await;
            assert_eq!(scrub(&disk).await, (vec![], 0), "{offset}");
            disk.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn only_the_same_shard_of_the_same_owner_replaces_a_damaged_one() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=2, &SIZES).await;
    machine.overwrite(0, record_of(&machine, 2) + 200, b"!");
    assert_eq!(scrub(&disk).await, (vec![2], 1));
    assert!(matches!(put(&disk, shard(2), &units(9, &SIZES)).await, Err(WriteError::AlreadyExists { .. })));
    let owner = Owner { txn: TxnId::from_u128(77), ..OWNER };
    let mut other = disk.writer(shard(2), owner, placement_types::Profile::SINGLE);
    for unit in units(2, &SIZES) {
        other.append(unit).await.unwrap();
    }
    assert!(matches!(other.finish().await, Err(WriteError::AlreadyExists { .. })));
    assert_eq!(held(&disk, 1..=2).await, [Held::Whole, Held::Damaged]);
    // What is sound of it may be the last there is of its stripe.
    assert_eq!(disk.read_units(shard(2), 1, 1).await.unwrap(), units(2, &SIZES)[1..]);
    disk.delete_shards(vec![shard(2)]).await.unwrap();
    assert_eq!((held(&disk, [2]).await, disk.quarantined(None, 10)), (vec![Held::Missing], vec![]));
}

#[tokio::test]
async fn a_place_that_cannot_be_read_is_left_for_another() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=2, &SIZES).await;
    machine.fs.fail_all("/disk/segments", FaultKind::Read);
    assert_eq!(disk.examine(shard(2)).await.unwrap().held, Held::Damaged);
    machine.fs.clear_faults();
    assert_eq!(held(&disk, 1..=2).await, [Held::Whole, Held::Damaged]);
    let before = record_of(&machine, 2);
    put_all(&disk, [2], &SIZES).await;
    assert_eq!(held(&disk, 1..=2).await, [Held::Whole; 2]);
    check_all(&disk, 1..=2, &SIZES).await;
    let content = &units(2, &SIZES)[0];
    let rewritten = machine.find(0, content).into_iter().any(|at| at > before + HEADER_BYTES as u64);
    assert!(rewritten, "it is elsewhere on the disk now");
}

#[tokio::test]
async fn a_crash_while_a_damaged_shard_is_replaced_leaves_the_old_or_the_new_one() {
    let mut replaced = 0;
    for halt in 0..12 {
        let machine = Machine::new(halt).await;
        let disk = machine.open().await;
        put_all(&disk, 1..=3, &SIZES).await;
        machine.overwrite(0, record_of(&machine, 2) + 200, b"!");
        assert_eq!(scrub(&disk).await, (vec![2], 1));
        machine.fs.halt_after(halt);
        let acked = put(&disk, shard(2), &units(2, &SIZES)).await.is_ok();
        machine.crash(disk, 0).await;
        let disk = machine.open().await;
        check_all(&disk, [1, 3], &SIZES).await;
        let whole = disk.examine(shard(2)).await.unwrap().held == Held::Whole;
        assert!(whole || !acked, "{halt}: an acknowledged repair is durable");
        replaced += usize::from(whole);
        // Whatever it was, it can be repaired now.
        put_all(&disk, [2], &SIZES).await;
        check_all(&disk, 1..=3, &SIZES).await;
    }
    assert!(replaced > 0 && replaced < 12, "{replaced}: both happened");
}

#[tokio::test]
async fn a_segment_that_disappears_under_a_running_disk_takes_its_shards_along() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=3, &SIZES).await;
    assert!(disk.forget_missing_segments().await.unwrap().is_empty());
    // It is the one that is written to, and it is open.
    machine.env.fs.remove_file(&machine.segment_path(0)).unwrap();
    assert_eq!(disk.forget_missing_segments().await.unwrap(), [0]);
    assert_eq!(held(&disk, 1..=3).await, [Held::Damaged; 3]);
    assert_eq!(scrub(&disk).await.0, [1, 2, 3]);
    put_all(&disk, 1..=4, &SIZES).await;
    assert_eq!(held(&disk, 1..=4).await, [Held::Whole; 4]);
    for lose_index in [false, true] {
        let disk = reopened(&machine, disk.clone(), lose_index).await;
        check_all(&disk, 1..=4, &SIZES).await;
        assert_eq!(disk.usage().await.unwrap().shards, 4);
        disk.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_was_unmounted_has_not_lost_its_segments() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=3, &SIZES).await;
    machine.env.fs.remove_file(&path().join("disk.id")).unwrap();
    machine.env.fs.remove_file(&machine.segment_path(0)).unwrap();
    assert!(matches!(disk.forget_missing_segments().await, Err(WriteError::Dead { .. })));
    assert_eq!(held(&disk, 1..=3).await, [Held::Whole; 3], "nothing follows about its shards");
}

#[tokio::test]
async fn a_segment_that_is_gone_or_short_at_the_start_is_damage_that_can_be_repaired() {
    for short in [false, true] {
        let machine = Machine::new(7).await;
        let disk = machine.open().await;
        put_all(&disk, 1..=3, &SIZES).await;
        disk.close().await.unwrap();
        if short {
            let file = machine.env.fs.open(&machine.segment_path(0), OpenMode::ReadWrite).unwrap();
            file.set_len(record_of(&machine, 2) + 100).unwrap();
        } else {
            machine.env.fs.remove_file(&machine.segment_path(0)).unwrap();
        }
        let disk = machine.open().await;
        let expected = if short { vec![2, 3] } else { vec![1, 2, 3] };
        assert_eq!(scrub(&disk).await.0, expected);
        put_all(&disk, 1..=3, &SIZES).await;
        assert_eq!(held(&disk, 1..=3).await, [Held::Whole; 3]);
        check_all(&disk, 1..=3, &SIZES).await;
    }
}

#[tokio::test]
async fn what_the_index_lost_is_found_in_the_segments_and_put_back() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=6, &SIZES).await;
    disk.delete_shards(vec![shard(4), shard(5)]).await.unwrap();
    put_all(&disk, [5], &SIZES).await;
    disk.close().await.unwrap();
    // One whole, one damaged, one that a tombstone explains, one written again behind its tombstone.
    machine.overwrite(0, record_of(&machine, 3) + 200, b"!");
    for id in [2, 3, 4, 5] {
        lose_index_row(&machine, id);
    }
    let disk = machine.open().await;
    assert_eq!(held(&disk, 2..=5).await, [Held::Missing; 4]);
    assert_eq!(search(&disk).await, (vec![2, 5], 1));
    assert_eq!(held(&disk, 1..=6).await, [Held::Whole, Held::Whole, Held::Missing, Held::Missing, Held::Whole, Held::Whole]);
    assert_eq!(search(&disk).await, (vec![], 1), "what is not whole is not taken back");
    check_all(&disk, [1, 2, 5, 6], &SIZES).await;
    let usage = disk.usage().await.unwrap();
    disk.delete_shards(vec![shard(2), shard(5)]).await.unwrap();
    assert_eq!(disk.usage().await.unwrap().shards, usage.shards - 2, "they are shards like any other");
    let disk = reopened(&machine, disk, false).await;
    check_all(&disk, [1, 6], &SIZES).await;
    assert_eq!(search(&disk).await.0, [0; 0], "deleted is deleted");
}

#[tokio::test]
async fn a_scrub_among_writes_deletes_and_compaction_finds_nothing() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    put_all(&disk, 1..=6, &[500_000, 400_000]).await;
    let mut found = DarkSearch::default();
    for id in 1..=5 {
        found = disk.search_dark(found).await.unwrap();
        disk.delete_shards(vec![shard(id)]).await.unwrap();
        while disk.compact_once().await.unwrap().is_some() {}
        put_all(&disk, [10 + id], &[500_000, 400_000]).await;
    }
    while !found.is_complete {
        found = disk.search_dark(found).await.unwrap();
    }
    assert_eq!(disk.adopt(found).await.unwrap(), crate::Adopted::default());
    assert_eq!(scrub(&disk).await, (vec![], 0));
    check_all(&disk, 11..=15, &[500_000, 400_000]).await;
}

#[tokio::test]
async fn how_far_the_scrub_is_survives_a_restart() {
    let machine = Machine::new(7).await;
    let disk = machine.open().await;
    assert_eq!(disk.load_scrub().await.unwrap(), ScrubState::default());
    let tally = ScrubTally { began: Timestamp::from_millis(5), shards: 7, bytes: 9, ..ScrubTally::default() };
    let state = ScrubState { current: Some((tally, Some(shard(3)))), finished: None };
    disk.save_scrub(state).await.unwrap();
    let disk = reopened(&machine, disk, false).await;
    assert_eq!(disk.load_scrub().await.unwrap(), state);
    let disk = reopened(&machine, disk, true).await;
    assert_eq!(disk.load_scrub().await.unwrap(), ScrubState::default(), "a lost index begins anew");
}
