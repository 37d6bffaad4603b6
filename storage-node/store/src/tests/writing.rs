use tokio::task::JoinSet;

use super::machine::*;
use crate::{ReadError, UNIT_BYTES_MAX, UNITS_MAX, WriteError};

#[tokio::test]
async fn a_shard_reads_back_unit_by_unit() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    let content = units(1, &[1 << 20, 300_000, 0, 1, 4096 - 160]);
    put(&disk, shard(1), &content).await.unwrap();
    assert_eq!(get(&disk, shard(1)).await.unwrap(), content);
    assert_eq!(disk.read_units(shard(1), 1, 2).await.unwrap(), content[1..3]);
    assert!(matches!(disk.read_units(shard(1), 4, 2).await, Err(ReadError::NoSuchUnit { unit: 5, units: 5, .. })));
    assert!(matches!(disk.read_units(shard(2), 0, 1).await, Err(ReadError::NotFound { .. })));
    let summary = disk.stat(shard(1)).await.unwrap();
    assert_eq!((summary.shard, summary.txn, summary.slot), (shard(1), OWNER.txn, OWNER.slot));
    assert_eq!((summary.units, summary.bytes), (5, content.iter().map(|unit| unit.len() as u64).sum()));
}

#[tokio::test]
async fn an_empty_shard_is_a_shard() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    put(&disk, shard(1), &[]).await.unwrap();
    assert_eq!(get(&disk, shard(1)).await, Some(vec![]));
}

#[tokio::test]
async fn nothing_is_readable_before_finish_nor_after_the_writer_was_dropped() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    let mut writer = writer(&disk, shard(1));
    for unit in units(1, &[100_000; 5]) {
        writer.append(unit).await.unwrap();
    }
    disk.checkpoint().await.unwrap();
    assert_eq!(get(&disk, shard(1)).await, None);
    assert!(disk.usage().await.unwrap().live_bytes > 400_000, "what is being written is not dead");
    drop(writer);
    assert_eq!(disk.usage().await.unwrap().live_bytes, 0);
    assert!(disk.usage().await.unwrap().dead_bytes > 400_000);
    disk.close().await.unwrap();
    machine.lose_index();
    let disk = machine.open().await;
    assert_eq!(get(&disk, shard(1)).await, None);
}

#[tokio::test]
async fn writing_a_shard_again_is_fine_only_with_the_same_content() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    let content = units(1, &[5000, 70_000]);
    put(&disk, shard(1), &content).await.unwrap();
    put(&disk, shard(1), &content).await.unwrap();
    assert_eq!(
        put(&disk, shard(1), &units(2, &[5000, 70_000])).await,
        Err(WriteError::AlreadyExists { disk: IDENTITY.disk, shard: shard(1) })
    );
    assert_eq!(get(&disk, shard(1)).await.unwrap(), content);
    assert_eq!(disk.usage().await.unwrap().shards, 1);
    disk.delete_shards(vec![shard(1)]).await.unwrap();
    put(&disk, shard(1), &units(2, &[5000])).await.unwrap();
    assert_eq!(get(&disk, shard(1)).await.unwrap(), units(2, &[5000]));
}

#[tokio::test]
async fn of_two_writers_of_one_shard_with_different_content_one_wins() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    let (mut first, mut second, mut third) = (writer(&disk, shard(1)), writer(&disk, shard(1)), writer(&disk, shard(1)));
    first.append(units(1, &[900]).remove(0)).await.unwrap();
    second.append(units(2, &[900]).remove(0)).await.unwrap();
    third.append(units(1, &[900]).remove(0)).await.unwrap();
    let (first, second, third) = tokio::join!(first.finish(), second.finish(), third.finish());
    assert_eq!((first, third), (Ok(()), Ok(())));
    assert!(matches!(second, Err(WriteError::AlreadyExists { .. })));
    assert_eq!(get(&disk, shard(1)).await.unwrap(), units(1, &[900]));
    assert_eq!(disk.usage().await.unwrap().shards, 1);
}

#[tokio::test]
async fn a_shard_beyond_the_limits_is_refused() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    let mut large = writer(&disk, shard(1));
    let refused = large.append(vec![0; UNIT_BYTES_MAX + 1].into()).await;
    assert_eq!(refused, Err(WriteError::UnitTooLarge { shard: shard(1), bytes: UNIT_BYTES_MAX + 1 }));
    let mut long = writer(&disk, shard(2));
    for _ in 0..UNITS_MAX {
        long.append("unit".into()).await.unwrap();
    }
    assert_eq!(long.append("unit".into()).await, Err(WriteError::TooManyUnits { shard: shard(2) }));
    long.finish().await.unwrap();
    assert_eq!(get(&disk, shard(2)).await.unwrap().len(), UNITS_MAX);
}

#[tokio::test]
async fn shards_that_finish_together_share_an_fsync() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    put(&disk, shard(1000), &units(1, &[10])).await.unwrap();
    let before = machine.fs.operations();
    let mut finishing = JoinSet::new();
    for id in 0..64 {
        let disk = disk.clone();
        finishing.spawn(async move { put(&disk, shard(id), &units(1, &[10])).await });
    }
    while let Some(finished) = finishing.join_next().await {
        finished.unwrap().unwrap();
    }
    // One write each; everything else are syncs.
    let syncs = machine.fs.operations() - before - 64;
    assert!((1..=4).contains(&syncs), "{syncs} syncs for 64 shards");
}

#[tokio::test]
async fn deletes_are_idempotent_and_several_at_once() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    put_all(&disk, 0..10, &[2000]).await;
    let some = vec![shard(3), shard(4), shard(4), shard(77)];
    let (first, second) = tokio::join!(disk.delete_shards(some.clone()), disk.delete_shards(some.clone()));
    assert_eq!((first, second), (Ok(()), Ok(())));
    disk.delete_shards(some).await.unwrap();
    disk.delete_shards(vec![]).await.unwrap();
    assert_eq!(disk.usage().await.unwrap().shards, 8);
    assert_eq!((get(&disk, shard(3)).await, get(&disk, shard(5)).await), (None, Some(units(5, &[2000]))));
}

#[tokio::test]
async fn a_listing_pages_through_every_shard_in_order() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    for id in [5, 1, 9, 3, 7] {
        put(&disk, shard(id), &units(1, &[10])).await.unwrap();
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = disk.shards(after, 2).await.unwrap();
        listed.extend(page.iter().map(|summary| summary.shard));
        if page.len() < 2 {
            break;
        }
        after = listed.last().copied();
    }
    assert_eq!(listed, [1, 3, 5, 7, 9].map(shard));
}

#[tokio::test]
async fn a_closed_disk_opens_again_and_its_old_handles_are_refused() {
    let machine = Machine::new(1).await;
    let disk = machine.open().await;
    put(&disk, shard(1), &units(1, &[5000])).await.unwrap();
    let old = disk.clone();
    let mut unfinished = writer(&disk, shard(2));
    unfinished.append(units(2, &[5000]).remove(0)).await.unwrap();
    disk.close().await.unwrap();
    assert_eq!(unfinished.finish().await, Err(WriteError::Closed { disk: IDENTITY.disk }));
    assert_eq!(old.delete_shards(vec![shard(1)]).await, Err(WriteError::Closed { disk: IDENTITY.disk }));
    let disk = machine.open().await;
    assert_eq!((get(&disk, shard(1)).await, get(&disk, shard(2)).await), (Some(units(1, &[5000])), None));
}

#[tokio::test]
async fn restarts_go_on_in_the_last_segment() {
    let machine = Machine::new(1).await;
    for id in 0..5 {
        let disk = machine.open().await;
        put(&disk, shard(id), &units(id as u64, &[5000])).await.unwrap();
        disk.close().await.unwrap();
    }
    let disk = machine.open().await;
    assert_eq!(disk.usage().await.unwrap().segments, 1);
    for id in 0..5 {
        assert_eq!(get(&disk, shard(id)).await, Some(units(id as u64, &[5000])));
    }
}
